"""Block-sparse in Triton: tensor cores over active square blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from hwsim.errors import InputError
from hwsim.kernels.gpu._rows import constants
from hwsim.kernels.gpu.base import (
    PackedWeight,
    TritonKernel,
    row_starts,
    shape_of,
    widened,
)

SIDES = (128, 64, 32, 16)  # tl.dot takes no less than 16


@triton.jit
def _blocks_times(
    starts, columns, order, values, x, out, m, inputs, outputs, ordered: tl.constexpr,
    side: tl.constexpr, height: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """out[:, block row] = Σ x[:, block column] · blockᵀ; with `ordered`, of transposed blocks."""
    block_row = tl.program_id(0)
    rows = (tl.program_id(1) * height + tl.arange(0, height)).to(tl.int64)
    lane = tl.arange(0, side)
    inside = (rows < m)[:, None]
    total = tl.zeros((height, side), dtype=tl.float32)
    first = tl.load(starts + block_row)
    last = tl.load(starts + block_row + 1)
    for entry in range(first, last):
        column = tl.load(columns + entry)
        place = entry
        if ordered:
            place = tl.load(order + entry)
        part = tl.load(x + rows[:, None] * inputs + column * side + lane[None, :],
                       mask=inside, other=0.0)  # fmt: skip
        base = values + tl.cast(place, tl.int64) * side * side
        # (depth, out): a transposed view of the block, or the block itself for its transpose.
        if ordered:
            block = tl.load(base + lane[:, None] * side + lane[None, :])
        else:
            block = tl.load(base + lane[None, :] * side + lane[:, None])
        if wide:
            part, block = part.to(tl.float32), block.to(tl.float32)
        total += tl.dot(part, block, input_precision="ieee")
    tl.store(out + rows[:, None] * outputs + block_row * side + lane[None, :], total, mask=inside)


@triton.jit
def _sampled_blocks(
    block_rows, block_columns, dy, x, out, m, outputs, inputs, side: tl.constexpr,
    height: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """out[e] = dy[:, block row]ᵀ · x[:, block column]; one program, one active block."""
    entry = tl.program_id(0)
    row = tl.load(block_rows + entry)
    column = tl.load(block_columns + entry)
    lane = tl.arange(0, side)
    total = tl.zeros((side, side), dtype=tl.float32)
    for begin in range(0, m, height):
        rows = (begin + tl.arange(0, height)).to(tl.int64)
        left = tl.load(dy + rows[None, :] * outputs + row * side + lane[:, None],
                       mask=(rows < m)[None, :], other=0.0)  # fmt: skip
        right = tl.load(x + rows[:, None] * inputs + column * side + lane[None, :],
                        mask=(rows < m)[:, None], other=0.0)  # fmt: skip
        if wide:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total += tl.dot(left, right, input_precision="ieee")
    place = entry.to(tl.int64) * side * side + lane[:, None] * side + lane[None, :]
    tl.store(out + place, total)


class BlockSparse(TritonKernel):
    """Square blocks of 128, 64, 32 or 16, the largest that the mask consists of, as BSR.

    Source: Gray et al. 2017, block-sparse weights on tensor cores.
    """

    name = "block"

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        side = _side(mask)
        rows, columns = weight.shape[0] // side, weight.shape[1] // side
        active = mask[::side, ::side].contiguous()
        block_rows, block_columns = active.nonzero(as_tuple=True)
        order = torch.argsort(block_columns, stable=True)
        grid = weight.view(rows, side, columns, side).transpose(1, 2)
        indices = {
            "starts": row_starts(active),
            "rows": block_rows.to(torch.int32),
            "columns": block_columns.to(torch.int32),
            "column_starts": row_starts(active.t()),
            "rows_by_column": block_rows[order].to(torch.int32),
            "order": order.to(torch.int32),
        }
        values = grid[block_rows, block_columns].contiguous()
        return PackedWeight(values, indices, shape_of(weight))

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        return self._times(x, packed, "starts", "columns", packed.shape[0], ordered=False)

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        return self._times(
            dy, packed, "column_starts", "rows_by_column", packed.shape[1], ordered=True
        )

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        i, side = packed.indices, packed.values.shape[-1]
        out = torch.empty(packed.values.shape, dtype=torch.float32, device=dy.device)
        if len(out):
            _sampled_blocks[(len(out),)](
                i["rows"], i["columns"], dy.contiguous(), x.contiguous(), out, x.shape[0],
                packed.shape[0], packed.shape[1],
                **constants(side=side, height=32, wide=widened(x)),
            )  # fmt: skip
        return out

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        side = values.shape[-1]
        rows, columns = packed.shape[0] // side, packed.shape[1] // side
        grid = torch.zeros((rows, columns, side, side), dtype=values.dtype, device=values.device)
        grid[packed.indices["rows"].long(), packed.indices["columns"].long()] = values
        return grid.transpose(1, 2).reshape(packed.shape)

    def _times(
        self, operand: torch.Tensor, packed: PackedWeight, starts: str, columns: str,
        outputs: int, *, ordered: bool,
    ) -> torch.Tensor:  # fmt: skip
        i, side, m = packed.indices, packed.values.shape[-1], operand.shape[0]
        out = torch.empty((m, outputs), dtype=operand.dtype, device=operand.device)
        height = min(64, max(16, triton.next_power_of_2(m)))
        _blocks_times[(outputs // side, triton.cdiv(m, height))](
            i[starts], i[columns], i["order"], packed.values, operand.contiguous(), out, m,
            operand.shape[1], outputs,
            **constants(ordered=ordered, side=side, height=height, wide=widened(operand)),
        )  # fmt: skip
        return out


def _side(mask: torch.Tensor) -> int:
    """The largest side of blocks that make up the mask."""
    for side in SIDES:
        if mask.shape[0] % side or mask.shape[1] % side:
            continue
        corners = mask[::side, ::side]
        if corners.repeat_interleave(side, 0).repeat_interleave(side, 1).equal(mask):
            return side
    raise InputError(
        f"mask: {mask.shape[0]}×{mask.shape[1]} is not made of aligned square blocks; "
        f"allowed sides: {', '.join(map(str, SIDES))}"
    )


KERNEL = BlockSparse()
