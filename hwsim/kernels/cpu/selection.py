"""Exact selection for mask updates: the k largest scores, and RigL's drop and grow in one call."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.kernels.cpu import selection_passes as passes
from hwsim.kernels.cpu.threads import ranges, run, thread_count

_LEAST_PER_THREAD = 1 << 19
_GRAIN = passes.BLOCK
_SAMPLE = 8192  # scores that tell where the k-th largest is about
_ABOVE_ALL = 0xFFFFFFFF


def top_k_mask(
    scores: np.ndarray,
    k: int,
    candidates: np.ndarray | None = None,
    *,
    by_magnitude: bool = False,
    finite: bool = False,
    threads: int | None = None,
) -> np.ndarray:
    """Boolean array, True at the k largest scores; ties go to the lowest index.

    A sample tells about where the k-th largest lies, one pass gathers what is not below that, and
    a radix selection on the bit patterns goes on with those. The answer depends neither on the
    sample nor on `threads`.

    Args:
        scores: float32, C-contiguous, one- or two-dimensional; two-dimensional scores are ranked
            as one list in row order. ±0 are equal; infinities are numbers.
        k: 0 … number of candidates.
        candidates: boolean, the shape of scores; only these positions can be taken.
        by_magnitude: rank |scores|.
        finite: every score must be finite, candidate or not.
        threads: default one per 524,288 scores, up to the cores at hand.

    Raises:
        InputError: wrong dtype, layout or shape, k out of range, a candidate that is NaN; with
            `finite` also any score that is NaN or infinite.

    >>> top_k_mask(np.array([1, 3, 3, 2], np.float32), 1).tolist()
    [False, True, False, False]
    """
    _check_floats("scores", scores)
    if candidates is None:
        allowed, available = None, scores.size
    else:
        _check_mask("candidates", candidates, "scores", scores.shape)
        allowed, available = (
            candidates.reshape(-1).view(np.uint8),
            int(np.count_nonzero(candidates)),
        )
    k = _check_count("k", k, available, "number of candidates")
    out = np.zeros(scores.size, np.uint8)
    _select("scores", scores, allowed, 1, by_magnitude, k, out, threads, finite)
    return out.view(np.bool_).reshape(scores.shape)


def drop_grow_mask(
    weights: np.ndarray,
    gradients: np.ndarray,
    mask: np.ndarray,
    n_drop: int,
    *,
    threads: int | None = None,
) -> np.ndarray:
    """The mask after one RigL update; as many ones as before.

    Kept are the nnz − n_drop active weights of largest |weight|; then n_drop positions of largest
    |gradient| are grown among all that were not kept, so that a weight just dropped may return.
    Ties go to the lowest index. Inactive weights are not looked at.

    Args:
        weights, gradients: float32, C-contiguous, of one shape, one- or two-dimensional.
        mask: boolean, the same shape.
        n_drop: 0 … nnz.

    Raises:
        InputError: wrong dtype, layout or shape, n_drop out of range, a NaN among active weights
            or among the gradients of what was not kept.

    Source: Evci et al. (2020), "Rigging the Lottery", section 3.

    >>> w, g = np.array([3, 1, 0], np.float32), np.array([0, 1, 2], np.float32)
    >>> drop_grow_mask(w, g, np.array([True, True, False]), 1).tolist()
    [True, False, True]
    """
    _check_floats("weights", weights)
    _check_floats("gradients", gradients)
    if gradients.shape != weights.shape:
        raise InputError(
            f"gradients: shape is {gradients.shape}; allowed is that of weights, {weights.shape}"
        )
    _check_mask("mask", mask, "weights", weights.shape)
    nnz = int(np.count_nonzero(mask))
    n_drop = _check_count("n_drop", n_drop, nnz, "number of active weights")
    out = np.zeros(weights.size, np.uint8)
    active = mask.reshape(-1).view(np.uint8)
    _select("weights", weights, active, 1, True, nnz - n_drop, out, threads)
    # `out` now holds what is kept: it is both the list of places taken and where growth is added.
    _select("gradients", gradients, out, 0, True, n_drop, out, threads)
    return out.view(np.bool_).reshape(mask.shape)


def _select(
    name: str,
    scores: np.ndarray,
    allowed: np.ndarray | None,
    wanted: int,
    by_magnitude: bool,
    k: int,
    out: np.ndarray,
    threads: int | None,
    finite: bool = False,
) -> None:
    """Adds the k largest among positions where allowed == wanted to `out` (uint8)."""
    bits = scores.reshape(-1).view(np.uint32)
    parts = ranges(bits.size, thread_count(threads, bits.size, _LEAST_PER_THREAD), _GRAIN)
    source = (bits, allowed, np.uint8(wanted), by_magnitude)
    least = _likely_least(source, k)
    found = _gather(source, parts, least, k + k // 2 + _GRAIN)
    if found is None or (least > 1 and sum(len(keys) for keys, _ in found[0]) < k):
        found = _gather(source, parts, 1, bits.size)  # the sample misled
    assert found is not None
    held, worst, worst_of_all = found
    if finite and worst_of_all >= passes.INFINITY:
        raise InputError(f"{name}: NaN or infinity; allowed are finite numbers")
    if worst > passes.INFINITY:
        raise InputError(f"{name}: a value is nan; allowed are numbers and infinities")
    if k == 0:
        return
    keys = held[0][0] if len(held) == 1 else np.concatenate([keys for keys, _ in held])
    threshold, ties = passes.kth_largest(keys, k)
    for keys, places in held:
        ties = passes.scatter(keys, places, np.uint32(threshold), ties, out)


def _likely_least(source: tuple[Any, ...], k: int) -> int:
    """A key that a few more than k are expected to reach; 1, which all reach, for few scores."""
    bits, allowed, wanted, by_magnitude = source
    step = bits.size // _SAMPLE
    if k == 0:
        return _ABOVE_ALL
    if step < 2:
        return 1
    keys = passes.sample(bits, allowed, wanted, by_magnitude, step)
    expected = k / bits.size * keys.size
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 1
    if rank >= keys.size:
        return 1
    return max(1, int(np.partition(keys, keys.size - rank)[keys.size - rank]))


def _gather(
    source: tuple[Any, ...], parts: list[tuple[int, int]], least: int, room: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], int, int] | None:
    """Keys of at least `least` and their places, by part; the largest magnitudes' bits.

    None where a part has more than `room` of them.
    """
    buffers = [
        tuple(np.empty(min(room, stop - start) + _GRAIN, np.uint32) for _ in range(2))
        for start, stop in parts
    ]
    found = run(
        passes.gather,
        [(*source, *p, np.uint32(least), *b) for p, b in zip(parts, buffers, strict=True)],
    )
    if min(count for count, *_ in found) < 0:
        return None
    held = [
        (keys[:count], places[:count])
        for (keys, places), (count, *_) in zip(buffers, found, strict=True)
    ]
    return held, max(high for _, high, _ in found), max(high for *_, high in found)


def _check_floats(name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{name}: type is {kind}; allowed is a numpy array of float32")
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(f"{name}: shape is {array.shape}; allowed is (n,) or (rows, columns) > 0")
    if not array.flags.c_contiguous:
        raise InputError(f"{name}: strides are {array.strides}; allowed is C-contiguous")


def _check_mask(name: str, mask: Any, like: str, shape: tuple[int, ...]) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"{name}: type is {kind}; allowed is a numpy array of bool")
    if mask.shape != shape:
        raise InputError(f"{name}: shape is {mask.shape}; allowed is that of {like}, {shape}")
    if not mask.flags.c_contiguous:
        raise InputError(f"{name}: strides are {mask.strides}; allowed is C-contiguous")


def _check_count(name: str, value: Any, most: int, what: str) -> int:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if 0 <= number <= most:
            return number
    raise InputError(f"{name}: value is {value!r}; allowed is an integer 0 … {most}, the {what}")
