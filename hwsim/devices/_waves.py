"""What a weight-streaming grid does in each wave, counted from the actual mask, in Numba.

A wave is a block of 128 outputs whose sums the PEs hold at a time. A table has a row for each wave:
nonzeros of the PE column that has most, nonzeros of all columns, outputs that have any.
"""

from __future__ import annotations

import numba
import numpy as np

from hwsim._counts import BLOCK

SLOWEST, NONZEROS, ACTIVE = range(3)


def dense_table(outputs: int, features: int, columns: int) -> np.ndarray:
    """The table of a matrix without zeros, (waves, 3) int64."""
    active = np.minimum(outputs - np.arange(0, outputs, BLOCK), BLOCK)
    slowest = active * -(-features // columns)
    return np.stack([slowest, active * features, active], axis=1)


@numba.njit(cache=True, nogil=True)
def wave_table(
    counts: np.ndarray, per_output: np.ndarray, columns: int, interleaved: bool
) -> np.ndarray:
    """The table of a mask, (waves, 3) int64.

    Args:
        counts: nonzeros of each feature in each wave, (waves, features) uint8.
        per_output: nonzeros of each output, (outputs,).
        columns: PE columns that the features are spread over.
        interleaved: feature j lies in column j mod `columns`; else in runs of neighbours, column c
            beginning with feature ⌊c·features/columns⌋.
    """
    waves, features = counts.shape
    columns = min(columns, features)
    loads = np.empty(columns, np.uint32)
    table = np.empty((waves, 3), np.int64)
    for w in range(waves):
        row = counts[w]
        loads[:] = 0
        if interleaved:
            for first in range(0, features, columns):
                part = row[first : first + columns]
                for c in range(part.size):
                    loads[c] += part[c]
        else:
            start = 0
            for c in range(columns):
                stop = (c + 1) * features // columns
                for j in range(start, stop):
                    loads[c] += row[j]
                start = stop
        slowest = nonzeros = np.uint32(0)
        for c in range(columns):
            slowest = max(slowest, loads[c])
            nonzeros += loads[c]
        active = 0
        for count in per_output[w * BLOCK : (w + 1) * BLOCK]:
            active += count > 0
        table[w, SLOWEST], table[w, NONZEROS], table[w, ACTIVE] = slowest, nonzeros, active
    return table


@numba.njit(cache=True, nogil=True)
def wave_cycles(
    table: np.ndarray,
    columns: int,
    per_nonzero: float,
    stream_per_nonzero: float,
    per_output: float,
) -> tuple[float, float, float, float, float]:
    """Cycles of all waves, and what they go to: even columns, imbalance, the stream, row links.

    A wave lasts as long as its slowest part: the column with most nonzeros, the stream, the links
    of the rows. Where that is the column, the time that an even spread over `columns` would take
    counts as even, the rest as imbalance.
    """
    total = even = imbalance = stream = rows = 0.0
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
    return total, even, imbalance, stream, rows


@numba.njit(cache=True, nogil=True)
def grouped_table(
    mask: np.ndarray, groups: int, columns: int, interleaved: bool, transposed: bool
) -> np.ndarray:
    """`wave_table` of the block-diagonal weight of a grouped convolution.

    Args:
        mask: (outputs of all groups, inputs of one) uint8; the outputs of a group are neighbours.
        transposed: waves are of inputs (group after group), and outputs lie over the columns.
    """
    high, wide = mask.shape[0] // groups, mask.shape[1]
    if transposed:
        high, wide = wide, high
    outputs, features = groups * high, groups * wide
    columns = min(columns, features)
    loads = np.empty(columns, np.int64)
    table = np.empty((-(-outputs // BLOCK), 3), np.int64)
    for w in range(table.shape[0]):
        loads[:] = 0
        active = 0
        for output in range(w * BLOCK, min((w + 1) * BLOCK, outputs)):
            group, place = output // high, output % high
            found = 0
            for j in range(wide):
                one = mask[group * wide + j, place] if transposed else mask[output, j]
                feature = group * wide + j
                # The second is the column c with ⌊c·features/columns⌋ ≤ feature, the last such.
                c = feature % columns if interleaved else ((feature + 1) * columns - 1) // features
                loads[c] += one
                found += one
            active += found > 0
        table[w, SLOWEST], table[w, NONZEROS], table[w, ACTIVE] = loads.max(), loads.sum(), active
    return table
