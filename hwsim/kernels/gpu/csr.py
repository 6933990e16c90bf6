"""CSR in Triton: any mask."""

from __future__ import annotations

import torch

from hwsim.kernels.gpu._rows import rows_times, sampled
from hwsim.kernels.gpu.base import PackedWeight, TritonKernel, row_starts, shape_of


class Csr(TritonKernel):
    """Compressed rows for forward and grad_weight, compressed columns for grad_input.

    Values are kept once, by rows; the columns' entries know their place among them.

    Source: Gale et al. 2020 (Sputnik): one-dimensional tiles of a row, SDDMM for grad_weight.
    """

    name = "csr"

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        rows, columns = mask.nonzero(as_tuple=True)
        # A stable sort by column keeps rows in order within each column.
        order = torch.argsort(columns, stable=True)
        indices = {
            "starts": row_starts(mask),
            "columns": columns.to(torch.int32),
            "column_starts": row_starts(mask.t()),
            "rows": rows[order].to(torch.int32),
            "order": order.to(torch.int32),
        }
        longest = int(mask.sum(dim=1).max())
        return PackedWeight(weight[rows, columns], indices, shape_of(weight), longest=longest)

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        i = packed.indices
        return rows_times(i["starts"], i["columns"], packed.values, None, x)

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        i = packed.indices
        return rows_times(i["column_starts"], i["rows"], packed.values, i["order"], dy)

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        i = packed.indices
        return sampled(i["starts"], i["columns"], packed.longest, dy, x)

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        dense = torch.zeros(packed.shape, dtype=values.dtype, device=values.device)
        starts = packed.indices["starts"].long()
        rows = torch.repeat_interleave(
            torch.arange(packed.shape[0], device=values.device), starts.diff()
        )
        dense[rows, packed.indices["columns"].long()] = values
        return dense


KERNEL = Csr()
