"""Dense products by torch (cuBLAS), the baseline; CUDA only."""

from __future__ import annotations

import torch

from hwsim.kernels.gpu.base import GpuKernel, PackedWeight, shape_of


class Dense(GpuKernel):
    """The masked weight as it is, zeros included. float32 is tf32 where torch is told so."""

    name = "dense"

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        return PackedWeight(weight * mask, {"mask": mask}, shape_of(weight))

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        return x @ packed.values.t()

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        return dy @ packed.values

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        return dy.t() @ x * packed.indices["mask"]

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        return values


KERNEL = Dense()
