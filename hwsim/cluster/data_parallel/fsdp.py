"""Fully sharded data parallel: PyTorch's name for ZeRO-3."""

from hwsim.cluster.data_parallel.zero3 import FORM

__all__ = ["FORM"]
