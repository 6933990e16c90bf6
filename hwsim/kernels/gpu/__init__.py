"""Real GPU kernels of a linear layer. One file, one kernel; nothing is imported until it is asked.

Each KERNEL has `pack(weight, mask)`, `forward(x, packed)`, `grad_input(dy, packed)`,
`grad_weight(dy, x, packed)` and `unpack(values, packed)`. Names are those that the GPU device
model prices. Triton kernels run on CUDA, or on the CPU under TRITON_INTERPRET=1.
"""

from hwsim.registry import Registry

GPU_KERNELS = Registry("GPU kernel", "hwsim.kernels.gpu", "KERNEL", group="nettime.gpu_kernels")

__all__ = ["GPU_KERNELS"]
