"""sparse_train: dynamic sparse training of torch modules."""

from sparse_train.sparsify import Sparsifier, sparsify

__all__ = ["Sparsifier", "sparsify"]
