"""Triton: products of a matrix whose rows list their active columns. Used by csr and gather.

Activations are held transposed, (features, m), so that a gathered feature is read as one run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _rows_times(
    starts, columns, values, order, features, out, m, ordered: tl.constexpr,
    chunk: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """out[r, :] = Σ values · features[column, :] over row r's entries; one program, `width` of m.

    With `ordered`, values are read through `order`: another order than the entries'.
    """
    row = tl.program_id(0)
    at = tl.program_id(1) * width + tl.arange(0, width)
    first = tl.load(starts + row)
    last = tl.load(starts + row + 1)
    total = tl.zeros((width,), dtype=tl.float32)
    for begin in range(first, last, chunk):
        entry = begin + tl.arange(0, chunk)
        live = entry < last
        column = tl.load(columns + entry, mask=live, other=0).to(tl.int64)
        place = entry
        if ordered:
            place = tl.load(order + entry, mask=live, other=0)
        value = tl.load(values + place, mask=live, other=0.0).to(tl.float32)
        both = live[:, None] & (at < m)[None, :]
        # What is not active is not read: a NaN in an unused input stays out of the sum.
        gathered = tl.load(features + column[:, None] * m + at[None, :], mask=both, other=0.0)
        total += tl.sum(value[:, None] * gathered.to(tl.float32), axis=0)
    tl.store(out + row.to(tl.int64) * m + at, total, mask=at < m)


@triton.jit
def _sampled(
    starts, columns, left, right, out, m, chunk: tl.constexpr, width: tl.constexpr
):  # fmt: skip
    """out[e] = left[row of e, :] · right[column of e, :]; one program, `chunk` entries of a row."""
    row = tl.program_id(0)
    first = tl.load(starts + row)
    last = tl.load(starts + row + 1)
    entry = first + tl.program_id(1) * chunk + tl.arange(0, chunk)
    live = entry < last
    column = tl.load(columns + entry, mask=live, other=0).to(tl.int64)
    total = tl.zeros((chunk,), dtype=tl.float32)
    for begin in range(0, m, width):
        at = begin + tl.arange(0, width)
        inside = at < m
        mine = tl.load(left + row.to(tl.int64) * m + at, mask=inside, other=0.0).to(tl.float32)
        both = live[:, None] & inside[None, :]
        theirs = tl.load(right + column[:, None] * m + at[None, :], mask=both, other=0.0)
        total += tl.sum(theirs.to(tl.float32) * mine[None, :], axis=1)
    tl.store(out + entry, total, mask=live)


def rows_times(
    starts: torch.Tensor,
    columns: torch.Tensor,
    values: torch.Tensor,
    order: torch.Tensor | None,
    activation: torch.Tensor,
) -> torch.Tensor:
    """activation (m, features) by a matrix of rows (starts, columns, values) → (m, rows)."""
    m, rows = activation.shape[0], len(starts) - 1
    features = activation.t().contiguous()
    out = torch.empty((rows, m), dtype=activation.dtype, device=activation.device)
    width = _width(m)
    _rows_times[(rows, triton.cdiv(m, width))](
        starts, columns, values, columns if order is None else order, features, out, m,
        **constants(ordered=order is not None, chunk=32, width=width),
    )  # fmt: skip
    return out.t().contiguous()


def sampled(
    starts: torch.Tensor, columns: torch.Tensor, longest: int, dy: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """dyᵀ·x at the listed places alone: dy (m, rows), x (m, columns) → one value per entry.

    `longest` is the number of entries of the fullest row.
    """
    out = torch.empty(len(columns), dtype=torch.float32, device=dy.device)
    if longest:
        chunk = 32
        _sampled[(len(starts) - 1, triton.cdiv(longest, chunk))](
            starts, columns, dy.t().contiguous(), x.t().contiguous(), out, dy.shape[0],
            **constants(chunk=chunk, width=_width(dy.shape[0])),
        )  # fmt: skip
    return out


def constants(**values: int) -> dict[str, Any]:
    """Compile-time arguments of a Triton kernel."""
    return dict(values)


def _width(m: int) -> int:
    """How much of m one program takes: a power of two, 16 to 128."""
    return min(128, max(16, triton.next_power_of_2(m)))
