"""What a weight-streaming grid does in each wave, counted from the actual mask, in Numba.

A wave is a block of 128 outputs whose sums the PEs hold at a time. A table has a row for each wave:
nonzeros of the PE column that has most, nonzeros of all columns, outputs that have any.
"""

from __future__ import annotations

import numba
import numpy as np

from hwsim.accelerators.placement import placed
from hwsim.masks.counts import BLOCK

SLOWEST, NONZEROS, ACTIVE = range(3)


def dense_table(outputs: int, features: int, columns: int) -> np.ndarray:
    """The table of a matrix without zeros, (waves, 3) int64."""
    active = np.minimum(outputs - np.arange(0, outputs, BLOCK), BLOCK)
    slowest = active * -(-features // columns)
    return np.stack([slowest, active * features, active], axis=1)


def wave_table(
    counts: np.ndarray, per_output: np.ndarray, columns: int, placement: str
) -> np.ndarray:
    """The table of a mask, (waves, 3) int64.

    Args:
        counts: nonzeros of each feature in each wave, (waves, features) uint8.
        per_output: nonzeros of each output, (outputs,).
        columns: PE columns that the features are spread over.
        placement: as in `placed`.
    """
    columns = min(columns, counts.shape[1])
    if placement == "interleaved":
        return _interleaved_table(counts, per_output, columns)
    return _placed_table(counts, per_output, columns, placed(counts, columns, placement))


@numba.njit(cache=True, nogil=True)
def _interleaved_table(counts: np.ndarray, per_output: np.ndarray, columns: int) -> np.ndarray:
    """`wave_table` of feature j in column j mod `columns`: whole runs of features are added."""
    waves, features = counts.shape
    loads = np.empty(columns, np.uint32)
    table = np.empty((waves, 3), np.int64)
    for w in range(waves):
        row = counts[w]
        loads[:] = 0
        for first in range(0, features, columns):
            part = row[first : first + columns]
            for c in range(part.size):
                loads[c] += part[c]
        _fill(table[w], loads, per_output[w * BLOCK : (w + 1) * BLOCK])
    return table


@numba.njit(cache=True, nogil=True)
def _placed_table(
    counts: np.ndarray, per_output: np.ndarray, columns: int, column_of: np.ndarray
) -> np.ndarray:
    """`wave_table` of features in the columns that `column_of` names."""
    waves, features = counts.shape
    loads = np.empty(columns, np.uint32)
    table = np.empty((waves, 3), np.int64)
    for w in range(waves):
        loads[:] = 0
        for j in range(features):
            loads[column_of[j]] += counts[w, j]
        _fill(table[w], loads, per_output[w * BLOCK : (w + 1) * BLOCK])
    return table


@numba.njit(cache=True, nogil=True)
def _fill(row: np.ndarray, loads: np.ndarray, per_output: np.ndarray) -> None:
    """A wave's row of the table, from the loads of its columns and the nonzeros of its outputs."""
    slowest = nonzeros = np.uint32(0)
    for load in loads:
        slowest = max(slowest, load)
        nonzeros += load
    active = 0
    for count in per_output:
        active += count > 0
    row[SLOWEST], row[NONZEROS], row[ACTIVE] = slowest, nonzeros, active


@numba.njit(cache=True, nogil=True)
def wave_cycles(
    table: np.ndarray,
    columns: int,
    per_nonzero: float,
    stream_per_nonzero: float,
    per_output: float,
    per_wave: float,
) -> tuple[float, float, float, float, float, float]:
    """Cycles of all waves, and what they go to: even columns, imbalance, stream, links, changes.

    A wave lasts as long as its slowest part: the column with most nonzeros, the stream, the links
    of the rows. Where that is the column, the time that an even spread over `columns` would take
    counts as even, the rest as imbalance. `per_wave` is added to each wave with a nonzero.
    """
    total = even = imbalance = stream = rows = between = 0.0
    for w in range(table.shape[0]):
        of_column = table[w, SLOWEST] * per_nonzero
        of_stream = table[w, NONZEROS] * stream_per_nonzero
        of_rows = table[w, ACTIVE] * per_output
        if of_column >= of_stream and of_column >= of_rows:
            share = table[w, NONZEROS] / columns * per_nonzero
            even += share
            imbalance += of_column - share
            total += of_column
        elif of_stream >= of_rows:
            stream += of_stream
            total += of_stream
        else:
            rows += of_rows
            total += of_rows
        if table[w, NONZEROS]:
            between += per_wave
    return total + between, even, imbalance, stream, rows, between


@numba.njit(cache=True, nogil=True)
def grouped_counts(
    mask: np.ndarray, groups: int, transposed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`counts` and `per_output` of the block-diagonal weight of a grouped convolution.

    Args:
        mask: (outputs of all groups, inputs of one) uint8; the outputs of a group are neighbours.
        transposed: waves are of inputs (group after group), and outputs lie over the columns.
    """
    high, wide = mask.shape[0] // groups, mask.shape[1]
    if transposed:
        high, wide = wide, high
    counts = np.zeros((-(-groups * high // BLOCK), groups * wide), np.uint8)
    per_output = np.zeros(groups * high, np.int64)
    for output in range(groups * high):
        group, place = output // high, output % high
        row = counts[output // BLOCK]
        for j in range(wide):
            one = mask[group * wide + j, place] if transposed else mask[output, j]
            row[group * wide + j] += one
            per_output[output] += one
    return counts, per_output
