"""Ways of training many networks of one architecture: one file is one way, bound to NETWORKS."""

from sparse_train.networks._base import PROGRESS, Networks, Recipe
from sparse_train.registries import NETWORKS

__all__ = ["NETWORKS", "PROGRESS", "Networks", "Recipe"]
