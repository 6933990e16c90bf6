"""Which weights are dropped and which are grown. One file, one algorithm."""

from hwsim.registry import Registry

ALGORITHMS = Registry("algorithm", "sparse_train.algorithms", "ALGORITHM")
