"""Kernels for processors, in numpy, scipy and Numba; one file is one kernel, bound to KERNEL."""
