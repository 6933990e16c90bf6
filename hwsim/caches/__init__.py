"""Caches to the access: the simulator and the address streams of real kernels."""
