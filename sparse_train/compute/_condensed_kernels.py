"""Products, loss and mask updates of a condensed layer, in Numba: one output after the other.

Arrays: `inputs` (n_out, k) integers and `values` (n_out, k) float32 are the layer; `x` is
(n_in, batch) float32, so that what an output reads of one input lies side by side. `labels` are
the positive (output, example) pairs, ordered by output, as two arrays.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

# Sums may be reordered, for SIMD; NaN and infinity keep their meaning.
_FAST: Any = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(inline="always")
def _mixed(state: Any) -> Any:
    """The output function of SplitMix64 (Steele et al. 2014): a hash of 64 bits."""
    z = state * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def random_inputs(inputs: Any, n_in: int, seed: Any) -> None:
    """Different random places below n_in in each row."""
    order = np.arange(n_in)
    n_out, k = inputs.shape
    for j in range(n_out):
        for f in range(k):
            counter = np.uint64(j * k + f) ^ seed
            other = f + np.int64(_mixed(counter) % np.uint64(n_in - f))
            order[f], order[other] = order[other], order[f]
            inputs[j, f] = order[f]


@numba.njit(inline="always", fastmath=_FAST)
def _scores(values: Any, inputs: Any, bias: Any, x: Any, j: int, z: Any) -> None:
    """z (batch,): what output j gives for each example."""
    batch = z.size
    for b in range(batch):
        z[b] = bias[j]
    for f in range(inputs.shape[1]):
        v = values[j, f]
        row = x[inputs[j, f]]
        for b in range(batch):
            z[b] += v * row[b]


@numba.njit(inline="always")
def _residuals(z: Any, g: Any, outputs: Any, examples: Any, j: int, at: int, loss: Any) -> int:
    """g = (sigmoid(z) − label) / batch and the loss of output j; where the next labels are."""
    batch = z.size
    for b in range(batch):
        e = np.exp(-abs(z[b]))
        g[b] = (np.float32(1) if z[b] >= 0 else e) / (1 + e) / batch
        loss[0] += max(z[b], np.float32(0)) + np.log1p(e)
    while at < outputs.size and outputs[at] == j:
        b = examples[at]
        loss[0] -= z[b]
        g[b] -= np.float32(1) / batch
        at += 1
    return at


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def one_versus_all(
    values: Any, inputs: Any, bias: Any, x: Any, outputs: Any, examples: Any,
    d_values: Any, d_bias: Any, d_x: Any,
) -> float:  # fmt: skip
    """Binary cross-entropy, summed over outputs, mean over the batch; gradients if there is room.

    No score is kept: an output's gradients are computed as soon as its scores are.

    Args:
        d_values, d_bias: written; d_x: added to. Without rows no gradient is computed.
    """
    batch = x.shape[1]
    z, g = np.empty(batch, np.float32), np.empty(batch, np.float32)
    loss = np.zeros(1, np.float64)
    at = 0
    for j in range(inputs.shape[0]):
        _scores(values, inputs, bias, x, j, z)
        at = _residuals(z, g, outputs, examples, j, at, loss)
        if d_values.shape[0] == 0:
            continue
        total = np.float32(0)
        for b in range(batch):
            total += g[b]
        d_bias[j] = total
        for f in range(inputs.shape[1]):
            i, v = inputs[j, f], values[j, f]
            row, d_row = x[i], d_x[i]
            total = np.float32(0)
            for b in range(batch):
                total += g[b] * row[b]
                d_row[b] += v * g[b]
            d_values[j, f] = total
    return loss[0] / batch


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def best_outputs(values: Any, inputs: Any, bias: Any, x: Any, best: Any) -> None:
    """best (batch, k): the outputs with the highest scores, highest first; ties to the lowest."""
    batch, k = best.shape
    z = np.empty(batch, np.float32)
    scores = np.full((batch, k), -np.inf, np.float32)
    best[:] = -1
    for j in range(inputs.shape[0]):
        _scores(values, inputs, bias, x, j, z)
        for b in range(batch):
            if best[b, k - 1] >= 0 and not z[b] > scores[b, k - 1]:
                continue
            place = k - 1
            while place > 0 and (best[b, place - 1] < 0 or z[b] > scores[b, place - 1]):
                scores[b, place] = scores[b, place - 1]
                best[b, place] = best[b, place - 1]
                place -= 1
            scores[b, place] = z[b]
            best[b, place] = j


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def regrow(
    values: Any, first: Any, second: Any, inputs: Any, bias: Any, x: Any,
    outputs: Any, examples: Any, threshold: Any, ties: int, by_gradient: bool, seed: Any,
) -> int:  # fmt: skip
    """Drops the weights below a magnitude and gives each output as many new ones.

    Of the weights with just the magnitude `threshold` the first `ties` stay. New inputs are those
    with the largest gradient, which is computed for one output at a time, (n_in,), or random ones.
    Whatever was not kept is a candidate: a dropped weight that comes back is as it was. A new one
    starts at 0 and without moments.

    Args:
        first, second: moments like `values`, or without rows.
        by_gradient: whether growth looks at gradients.
        seed: of random growth.

    Returns:
        weights with a new input.
    """
    n_out, k = inputs.shape
    n_in, batch = x.shape
    z, g = np.empty(batch, np.float32), np.empty(batch, np.float32)
    score = np.empty(n_in, np.float32)
    dropped, chosen = np.empty(k, np.bool_), np.empty(n_in, np.bool_)
    loss = np.zeros(1, np.float64)
    at = changed = 0
    for j in range(n_out):
        start = at
        while at < outputs.size and outputs[at] == j:
            at += 1
        missing = 0
        for f in range(k):
            size = abs(values[j, f])
            keeps = size > threshold
            if size == threshold and ties > 0:
                keeps, ties = True, ties - 1
            dropped[f] = not keeps
            missing += not keeps
        if missing == 0:
            continue
        if by_gradient:
            _scores(values, inputs, bias, x, j, z)
            _residuals(z, g, outputs, examples, j, start, loss)
            for i in range(n_in):
                total = np.float32(0)
                for b in range(batch):
                    total += g[b] * x[i, b]
                score[i] = abs(total)
        else:
            for i in range(n_in):
                bits = _mixed(np.uint64(j * n_in + i) ^ seed) >> np.uint64(40)
                score[i] = np.float32(np.int64(bits))
        for f in range(k):
            if not dropped[f]:
                score[inputs[j, f]] = -1
        changed += _take(score, missing, chosen, dropped, values, first, second, inputs, j)
    return changed


@numba.njit(inline="always")
def _take(
    score: Any, missing: int, chosen: Any, dropped: Any,
    values: Any, first: Any, second: Any, inputs: Any, j: int,
) -> int:  # fmt: skip
    """Gives the dropped weights of output j the best inputs; how many moved."""
    n_in = score.size
    level = np.partition(score, n_in - missing)[n_in - missing]
    left = missing
    for i in range(n_in):
        chosen[i] = score[i] > level
        left -= chosen[i]
    for i in range(n_in):
        if left > 0 and score[i] == level and not chosen[i]:
            chosen[i] = True
            left -= 1
    for f in range(inputs.shape[1]):
        if dropped[f] and chosen[inputs[j, f]]:  # comes back
            chosen[inputs[j, f]] = False
            dropped[f] = False
    moved = i = 0
    for f in range(inputs.shape[1]):
        if not dropped[f]:
            continue
        while i < n_in and not chosen[i]:
            i += 1
        if i == n_in:
            break
        inputs[j, f] = i
        values[j, f] = 0
        if first.shape[0]:
            first[j, f] = 0
        if second.shape[0]:
            second[j, f] = 0
        moved += 1
        i += 1
    return moved
