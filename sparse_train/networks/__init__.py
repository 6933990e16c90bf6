"""Ways of training many networks of one architecture: one file is one way, bound to NETWORKS."""

from hwsim.registry import Registry

NETWORKS = Registry("way of training", "sparse_train.networks", "NETWORKS")
