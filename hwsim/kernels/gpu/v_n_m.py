"""V:N:M in Triton: the columns that V rows share are gathered once, for dense tensor cores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import triton
import triton.language as tl

from hwsim.errors import InputError
from hwsim.kernels.gpu._rows import constants
from hwsim.kernels.gpu.base import PackedWeight, TritonKernel, shape_of, widened
from hwsim.patterns.passes.v_n_m import largest
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS, ROWS, WIDTHS

_HEIGHT, _CHUNK = 64, 64  # rows of activations, and slots of a block, that a program takes at once


@triton.jit
def _gathered_times(
    columns, values, features, out, m, outputs, slots, side: tl.constexpr,
    height: tl.constexpr, chunk: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """out[:, block of rows] = features[columns of the block, :]ᵀ · valuesᵀ."""
    block = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * height + tl.arange(0, height)
    lane = block * side + tl.arange(0, side)
    total = tl.zeros((height, side), dtype=tl.float32)
    for begin in range(0, slots, chunk):
        slot = begin + tl.arange(0, chunk)
        live = slot < slots
        column = tl.load(columns + block * slots + slot, mask=live, other=-1).to(tl.int64)
        # A slot that no row uses has no column: nothing is read for it.
        part = tl.load(features + column[None, :] * m + at[:, None],
                       mask=(column >= 0)[None, :] & (at < m)[:, None], other=0.0)  # fmt: skip
        weight = tl.load(values + lane[None, :] * slots + slot[:, None],
                         mask=live[:, None], other=0.0)  # fmt: skip
        if wide:
            part, weight = part.to(tl.float32), weight.to(tl.float32)
        total += tl.dot(part, weight, input_precision="ieee")
    tl.store(out + at.to(tl.int64)[:, None] * outputs + lane[None, :], total,
             mask=(at < m)[:, None] & (lane < outputs)[None, :])  # fmt: skip


@triton.jit
def _scattered_times(
    columns, values, dy, out, m, outputs, slots, side: tl.constexpr,
    height: tl.constexpr, chunk: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """out[columns of the block, :] += (dy[:, block of rows] · values)ᵀ, a chunk of columns."""
    block = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * chunk + tl.arange(0, chunk)
    at = tl.program_id(2) * height + tl.arange(0, height)
    lane = block * side + tl.arange(0, side)
    live = slot < slots
    column = tl.load(columns + block * slots + slot, mask=live, other=-1).to(tl.int64)
    part = tl.load(dy + at.to(tl.int64)[:, None] * outputs + lane[None, :],
                   mask=(at < m)[:, None] & (lane < outputs)[None, :], other=0.0)  # fmt: skip
    weight = tl.load(values + lane[:, None] * slots + slot[None, :],
                     mask=live[None, :], other=0.0)  # fmt: skip
    if wide:
        part, weight = part.to(tl.float32), weight.to(tl.float32)
    tl.atomic_add(out + column[None, :] * m + at[:, None],
                  tl.dot(part, weight, input_precision="ieee"),
                  mask=(column >= 0)[None, :] & (at < m)[:, None], sem="relaxed")  # fmt: skip


@triton.jit
def _sampled_columns(
    columns, active, dy, features, out, m, outputs, slots, side: tl.constexpr,
    height: tl.constexpr, chunk: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """out[block] = dy[:, block of rows]ᵀ · features[columns of the block, :]ᵀ where active."""
    block = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * chunk + tl.arange(0, chunk)
    lane = block * side + tl.arange(0, side)
    live = slot < slots
    column = tl.load(columns + block * slots + slot, mask=live, other=-1).to(tl.int64)
    total = tl.zeros((side, chunk), dtype=tl.float32)
    for begin in range(0, m, height):
        at = begin + tl.arange(0, height)
        left = tl.load(dy + at.to(tl.int64)[None, :] * outputs + lane[:, None],
                       mask=(at < m)[None, :] & (lane < outputs)[:, None], other=0.0)  # fmt: skip
        right = tl.load(features + column[None, :] * m + at[:, None],
                        mask=(column >= 0)[None, :] & (at < m)[:, None], other=0.0)  # fmt: skip
        if wide:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total += tl.dot(left, right, input_precision="ieee")
    place = lane[:, None] * slots + slot[None, :]
    kept = tl.load(active + place, mask=live[None, :], other=0)
    tl.store(out + place, tl.where(kept != 0, total, 0.0), mask=live[None, :])


class VNM(TritonKernel):
    """Blocks of V rows, each with the four columns it uses of every M, as a dense V × 4·k/M weight.

    V and M are the largest that the mask has, of those in `hwsim.patterns.passes.v_n_m`. The two
    zeros among the four are multiplied: 4/M of the dense arithmetic, where sparse tensor cores,
    which Triton has no instruction for, would do 2/M. A NaN in an input that a block uses reaches
    all its rows.

    x is transposed first, so that a gathered column is read as one run. grad_input adds into its
    outputs atomically, since blocks share columns: sums of float32 in no fixed order.

    Source: Castro et al. 2023 (VENOM) for the format; the kernel is this project's.
    """

    name = "v_n_m"

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        side, width = _blocks_of(mask)
        columns = _columns(mask, side, width)
        n, k = weight.shape
        rows, places = _places(columns, side, n)
        active = mask[places] & (rows < n) & (columns >= 0)[:, None, :]
        indices = {"columns": columns.to(torch.int32), "active": active.to(torch.uint8)}
        return PackedWeight(_values(weight, active, places), indices, (n, k))

    def repack(self, weight: torch.Tensor, packed: PackedWeight) -> PackedWeight:
        """Other values under the mask that `packed` has: what a step pays while the mask rests."""
        active = packed.indices["active"].bool()
        self.check_operand("weight", weight, packed.shape[1], packed.values)
        if shape_of(weight) != packed.shape:
            raise InputError(f"weight: shape is {shape_of(weight)}; allowed is {packed.shape}")
        _, places = _places(packed.indices["columns"].long(), active.shape[1], packed.shape[0])
        return replace(packed, values=_values(weight, active, places))

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        out = torch.empty((x.shape[0], packed.shape[0]), dtype=x.dtype, device=x.device)
        grid = (len(packed.values), triton.cdiv(x.shape[0], _HEIGHT))
        _gathered_times[grid](
            packed.indices["columns"], packed.values, x.t().contiguous(), out,
            *_sizes(x, packed), **_tile(x, packed),
        )  # fmt: skip
        return out

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        out = torch.zeros((packed.shape[1], dy.shape[0]), dtype=torch.float32, device=dy.device)
        blocks, _, slots = packed.values.shape
        # Blocks come first: those that add to the same columns run together, in cache.
        grid = (blocks, triton.cdiv(slots, _CHUNK), triton.cdiv(dy.shape[0], _HEIGHT))
        _scattered_times[grid](
            packed.indices["columns"], packed.values, dy.contiguous(), out,
            *_sizes(dy, packed), **_tile(dy, packed),
        )  # fmt: skip
        return out.t().to(dy.dtype).contiguous()

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        i, (blocks, _, slots) = packed.indices, packed.values.shape
        out = torch.empty(packed.values.shape, dtype=torch.float32, device=dy.device)
        _sampled_columns[(blocks, triton.cdiv(slots, _CHUNK))](
            i["columns"], i["active"], dy.contiguous(), x.t().contiguous(), out,
            *_sizes(x, packed), **_tile(x, packed),
        )  # fmt: skip
        return out

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        block, row, slot = packed.indices["active"].nonzero(as_tuple=True)
        dense = torch.zeros(packed.shape, dtype=values.dtype, device=values.device)
        columns = packed.indices["columns"][block, slot].long()
        dense[block * values.shape[1] + row, columns] = values[block, row, slot]
        return dense


def _places(
    columns: torch.Tensor, side: int, n: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of each block, (blocks, side, 1), and where its slots lie in the weight.

    Rows beyond the last and slots without a column lie somewhere: what is there is not active.
    """
    rows = torch.arange(len(columns) * side, device=columns.device).view(-1, side, 1)
    return rows, (rows.clamp(max=n - 1), columns.clamp(min=0)[:, None, :])


def _values(
    weight: torch.Tensor, active: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    return torch.where(active, weight[places], 0)


def _sizes(operand: torch.Tensor, packed: PackedWeight) -> tuple[int, ...]:
    """m, outputs, and slots of a block."""
    return operand.shape[0], packed.shape[0], packed.values.shape[2]


def _tile(operand: torch.Tensor, packed: PackedWeight) -> dict[str, int]:
    return constants(
        side=packed.values.shape[1], height=_HEIGHT, chunk=_CHUNK, wide=widened(operand)
    )


def _blocks_of(mask: torch.Tensor) -> tuple[int, int]:
    """V and M of a mask."""
    array = np.ascontiguousarray(mask.cpu().numpy()).view(np.uint8)
    side, width = largest(array, int(mask.sum(dim=1).max()))
    if not side:
        raise InputError(
            f"mask: {mask.shape[0]}×{mask.shape[1]} is not V:2:M with its fullest row more than "
            f"half full; allowed V: {', '.join(map(str, ROWS))}; "
            f"allowed M: {', '.join(map(str, WIDTHS))}"
        )
    return side, width


def _columns(mask: torch.Tensor, side: int, width: int) -> torch.Tensor:
    """The columns in use of each block, (blocks, 4 · blocks of columns); −1 where fewer are."""
    n, k = mask.shape
    padded = torch.nn.functional.pad(mask, (0, -k % width, 0, -n % side))
    used = padded.view(-1, side, padded.shape[1]).any(dim=1)
    used = used.view(len(used), -1, width)
    order = torch.argsort((~used).to(torch.uint8), dim=2, stable=True)[:, :, :COLUMNS]
    start = torch.arange(0, padded.shape[1], width, device=mask.device)[None, :, None]
    columns = torch.where(used.gather(2, order), order + start, -1)
    return columns.view(len(used), -1)


KERNEL = VNM()
