"""sparse_train: dynamic sparse training of torch modules."""

from sparse_train.sparsify import Sparsifier, sparsify
from sparse_train.workload import workload

__all__ = ["Sparsifier", "sparsify", "workload"]
