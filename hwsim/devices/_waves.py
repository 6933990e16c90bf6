"""Cycles of a weight-streaming pass, counted from the actual mask, in Numba."""

from __future__ import annotations

import numba
import numpy as np

BOUNDS = ("compute", "imbalance", "memory", "port")
COMPUTE, IMBALANCE, STREAM, PORT = range(4)


@numba.njit(cache=True, nogil=True)
def column_loads(counts: np.ndarray, columns: int, interleaved: bool) -> np.ndarray:
    """Nonzeros per wave and PE column, (waves, PE columns used), int32.

    Args:
        counts: nonzeros per wave and resident feature, (waves, features).
        columns: PE columns that the features are spread over.
        interleaved: feature j lies in column j % columns; otherwise each column has
            ⌈features/columns⌉ neighbours.
    """
    waves, features = counts.shape
    used = min(columns, features)
    width = -(-features // columns)
    loads = np.zeros((waves, used), np.int32)
    for w in range(waves):
        if interleaved:
            for first in range(0, features, columns):
                for c in range(min(columns, features - first)):
                    loads[w, c] += counts[w, first + c]
        else:
            for c in range(used):
                for j in range(c * width, min((c + 1) * width, features)):
                    loads[w, c] += counts[w, j]
    return loads


@numba.njit(cache=True, nogil=True)
def column_loads_transposed(counts: np.ndarray, columns: int, interleaved: bool) -> np.ndarray:
    """The same from counts per resident feature and wave, (features, waves)."""
    features, waves = counts.shape
    used = min(columns, features)
    width = -(-features // columns)
    loads = np.zeros((waves, used), np.int32)
    for j in range(features):
        c = j % columns if interleaved else j // width
        for w in range(waves):
            loads[w, c] += counts[j, w]
    return loads


@numba.njit(cache=True, nogil=True)
def wave_cycles(
    loads: np.ndarray,
    outputs: np.ndarray,
    cycles_per_nonzero: float,
    stream_cycles_per_nonzero: float,
    port_cycles_per_output: float,
) -> tuple[float, float, float, float]:
    """Cycles of all waves, split by what limits each.

    Args:
        loads: nonzeros per wave and PE column.
        outputs: outputs of each wave that have a nonzero, (waves,).

    A wave lasts as long as its slowest part: the column with most nonzeros, the stream, the
    output ports. Where the slowest column decides and has more than twice the mean, the wave
    counts as limited by imbalance.
    """
    waves, used = loads.shape
    by_bound = np.zeros(4)
    for w in range(waves):
        slowest = 0
        nonzeros = 0
        for c in range(used):
            nonzeros += loads[w, c]
            slowest = max(slowest, loads[w, c])
        compute = slowest * cycles_per_nonzero
        stream = nonzeros * stream_cycles_per_nonzero
        port = outputs[w] * port_cycles_per_output
        if compute >= stream and compute >= port:
            by_bound[IMBALANCE if slowest * used > 2 * nonzeros else COMPUTE] += compute
        elif stream >= port:
            by_bound[STREAM] += stream
        else:
            by_bound[PORT] += port
    return by_bound[0], by_bound[1], by_bound[2], by_bound[3]


@numba.njit(cache=True, nogil=True)
def active_columns(counts: np.ndarray, block: int) -> np.ndarray:
    """From counts (waves, features): features of each block with a nonzero, (⌈features/block⌉,)."""
    waves, features = counts.shape
    active = np.zeros(-(-features // block), np.int64)
    for j in range(features):
        for w in range(waves):
            if counts[w, j]:
                active[j // block] += 1
                break
    return active


@numba.njit(cache=True, nogil=True)
def active_rows(counts: np.ndarray, block: int) -> np.ndarray:
    """The same from counts (features, waves)."""
    features, waves = counts.shape
    active = np.zeros(-(-features // block), np.int64)
    for j in range(features):
        for w in range(waves):
            if counts[j, w]:
                active[j // block] += 1
                break
    return active
