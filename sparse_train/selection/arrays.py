"""What updates and patterns ask of arrays: numpy's on the host, torch's on the weights' device.

Both give the same bits. Single operations do so by IEEE 754; sums are halved in one order that
depends on their length alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any  # numpy's ndarray on the host, torch's Tensor on a device


def on_host(values: Array) -> bool:
    """Whether an array is numpy's."""
    return isinstance(values, np.ndarray)


def beside(values: np.ndarray, like: Array) -> Array:
    """A numpy array where another array is: itself, or a copy on the other's device."""
    if on_host(like):
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)


def brought(values: Array) -> np.ndarray:
    """An array on the host: itself, or a copy. Only for what is small (a number a neuron)."""
    return values if on_host(values) else values.cpu().numpy()


def count(mask: Array) -> int:
    """How many are True."""
    return int(np.count_nonzero(mask)) if on_host(mask) else int(mask.count_nonzero())


def size(values: Array) -> int:
    """How many values there are."""
    return math.prod(values.shape)


def copied(values: Array) -> Array:
    """A copy where the array lies."""
    return values.copy() if on_host(values) else values.clone()


def filled(shape: tuple[int, ...], value: bool, like: Array) -> Array:
    """A boolean array of one value, where `like` is."""
    if on_host(like):
        return np.full(shape, value, dtype=bool)
    return like.new_full(shape, value, dtype=like.bool().dtype)


def where(mask: Array, values: Array, other: Any) -> Array:
    """`values` where the mask is True, elsewhere `other`: an array like it, or a number."""
    if on_host(mask):
        return np.where(mask, values, other if on_host(other) else values.dtype.type(other))
    import torch

    same = torch.is_tensor(other)
    return torch.where(mask, values, other if same else values.new_tensor(other))


def at_least(values: Array, least: float) -> Array:
    """The larger of each value and a float32."""
    return np.maximum(values, np.float32(least)) if on_host(values) else values.clamp_min(least)


def as_int8(values: Array) -> Array:
    """As 8-bit integers."""
    if on_host(values):
        return values.astype(np.int8)
    import torch

    return values.to(torch.int8)


def single(values: Array) -> Array:
    """As float32."""
    return values.astype(np.float32, copy=False) if on_host(values) else values.float()


def as_bool(values: Array) -> Array:
    """True where not 0."""
    return values.astype(bool) if on_host(values) else values.bool()


def sign(values: Array) -> Array:
    """−1, 0 or 1 of each."""
    return np.sign(values) if on_host(values) else values.sign()


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays as one list, each in row order."""
    flat = [values.reshape(-1) for values in arrays]
    if on_host(flat[0]):
        return np.concatenate(flat)
    import torch

    return torch.cat(flat)


def below(arrays: Sequence[Array]) -> Array:
    """Matrices, each below the one before."""
    if on_host(arrays[0]):
        return np.concatenate(arrays)
    import torch

    return torch.cat(list(arrays))


def parted(flat: Any, sizes: Sequence[int]) -> list[Array]:
    """The inverse of `joined`."""
    return list(np.split(flat, np.cumsum(sizes)[:-1]) if on_host(flat) else flat.split(list(sizes)))


def places(mask: Array) -> Array:
    """Indices of what is True, of a list."""
    return np.flatnonzero(mask) if on_host(mask) else mask.nonzero().reshape(-1)


def first_least(values: Array) -> int:
    """The first index, in row order, of the least value."""
    return int(values.reshape(-1).argmin())


def equal(one: Array, other: Array) -> bool:
    """Whether two arrays of one kind are equal."""
    if on_host(one):
        return np.array_equal(one, other)
    return one.shape == other.shape and bool((one == other).all())


def finite(values: Array) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(np.isfinite(values).all()) if on_host(values) else bool(values.isfinite().all())


def sums(values: Array, axis: int) -> Array:
    """float64 sums over an axis: the second half is added to the first until one is left."""
    length = values.shape[axis]
    before = (slice(None),) * (axis % values.ndim)
    found = _double(values[(*before, slice(0, (length + 1) // 2))])  # ours to write to
    while length > 1:
        half = (length + 1) // 2
        rest = values if length == values.shape[axis] else found
        found = found[(*before, slice(0, half))]
        found[(*before, slice(0, length - half))] += rest[(*before, slice(half, length))]
        length = half
    return found[(*before, 0)]


def sum_of(values: Array) -> float:
    """The sum of all values, as `sums`."""
    return float(sums(values.reshape(-1), 0)) if size(values) else 0.0


def _double(values: Array) -> Array:
    """A copy in float64."""
    if on_host(values):
        return values.astype(np.float64)
    import torch

    return values.to(torch.float64, copy=True)


def largest(values: Array, axis: int) -> Array:
    """The largest value over an axis."""
    return values.max(axis=axis) if on_host(values) else values.amax(axis)


def padded(values: Array, rows: int, columns: int) -> Array:
    """A matrix with rows and columns of 0 added below and at the right."""
    if rows == columns == 0:
        return values
    if on_host(values):
        return np.pad(values, ((0, rows), (0, columns)))
    import torch

    return torch.nn.functional.pad(values, (0, columns, 0, rows))


def repeated(values: Array, times: int, axis: int) -> Array:
    """Each row (or column) so many times."""
    if on_host(values):
        return np.repeat(values, times, axis=axis)
    return values.repeat_interleave(times, dim=axis)


def in_segments(mask: Array, edges: np.ndarray) -> Array:
    """(n_out, segments) how many of each segment of each row are True, int64."""
    if on_host(mask):
        return np.add.reduceat(mask, edges[:-1], axis=1, dtype=np.int64)
    upto = mask.long().cumsum(1)
    upto = _with_zero_before(upto)
    ends = beside(edges, mask)
    return upto[:, ends[1:]] - upto[:, ends[:-1]]


def _with_zero_before(values: Array) -> Array:
    import torch

    return torch.cat([values.new_zeros(values.shape[0], 1), values], dim=1)


def best_rows(totals: Any, first: Any, rows: int) -> Array:
    """(n,) bool, `rows` of them: those of `first`, then those of largest total."""
    active = filled(tuple(totals.shape), True, first)
    if on_host(totals):
        active[np.lexsort((-totals, ~first))[rows:]] = False
        return active
    order = (-totals).argsort(stable=True)
    order = order[(~first)[order].to(totals.dtype).argsort(stable=True)]
    active[order[rows:]] = False
    return active


def best_of_each(totals: Any, first: Any, k: int) -> Array:
    """k True on the last axis (or all of it): those of `first`, then those of largest total."""
    chosen = filled(tuple(totals.shape), False, first)
    if on_host(totals):
        order = np.lexsort((-totals, ~first), axis=-1)
        np.put_along_axis(chosen, order[..., :k], True, axis=-1)
        return chosen
    order = (-totals).argsort(dim=-1, stable=True)
    order = order.gather(-1, (~first).gather(-1, order).int().argsort(dim=-1, stable=True))
    return chosen.scatter_(-1, order[..., :k], True)


def divided(values: Array, by: float) -> Array:
    """float32 values, each divided by one float32; by an array, since torch inverts a number."""
    if on_host(values):
        return values / np.float32(by)
    return values / values.new_tensor([by])
