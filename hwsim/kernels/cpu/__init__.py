"""Kernels for processors, in numpy, scipy and Numba: selection, and linear layers by name."""

from hwsim.registry import Registry

LINEAR = Registry("CPU kernel", "hwsim.kernels.cpu.linear", "KERNEL", group="nettime.cpu_kernels")
