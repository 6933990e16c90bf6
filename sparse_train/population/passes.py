"""Exact mask updates of many small networks in one call, in Numba.

All networks lie in one matrix (network, parameter); a layer is a range of its columns.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _add_top(scores: Any, mask: Any, wanted: int, k: int, chosen: Any) -> None:
    """Sets `chosen` where one of the k largest scores is, among positions where mask == wanted.

    Of equal scores those with the lowest index. `k` is at most the number of such positions.
    """
    if k <= 0:
        return
    held = np.empty(scores.size, np.float32)
    n = 0
    for i in range(scores.size):
        if mask[i] == wanted:
            held[n] = scores[i]
            n += 1
    least = held[:n].min() if k >= n else np.partition(held[:n], n - k)[n - k]
    ties = k
    for i in range(n):
        ties -= held[i] > least
    for i in range(scores.size):
        if mask[i] == wanted:
            if scores[i] > least:
                chosen[i] = 1
            elif scores[i] == least and ties > 0:
                chosen[i] = 1
                ties -= 1


@numba.njit(cache=True, nogil=True)
def redraw(
    which: Any, keep_scores: Any, grow_scores: Any, mask: Any, starts: Any, ends: Any,
    keep: Any, grow: Any,
) -> None:  # fmt: skip
    """New masks in place: the `keep` best active weights, and the `grow` best of all others.

    A weight that is not kept may grow again.

    Args:
        which: (n,) rows of the mask that are updated.
        keep_scores, grow_scores: float32 (n, parameters).
        mask: uint8 (networks, parameters).
        starts, ends: (layers,) columns of each layer.
        keep, grow: int64 (n, layers).
    """
    for row in range(which.size):
        for layer in range(starts.size):
            a, b = starts[layer], ends[layer]
            old = mask[which[row], a:b]
            if keep[row, layer] + grow[row, layer] == b - a:
                old[:] = 1
                continue
            kept = np.zeros(b - a, np.uint8)
            _add_top(keep_scores[row, a:b], old, 1, keep[row, layer], kept)
            new = kept.copy()
            _add_top(grow_scores[row, a:b], kept, 0, grow[row, layer], new)
            old[:] = new


@numba.njit(cache=True, nogil=True)
def gradient_masses(
    which: Any, magnitudes: Any, gradients: Any, mask: Any, starts: Any, ends: Any, counts: Any
) -> Any:
    """Σ|g| over the weights that would be active at each of some numbers of weights.

    Below the present number the largest magnitudes stay, above it the largest gradients join.

    Args:
        which: (n,) rows of the mask.
        magnitudes, gradients: |w| and |g|, float32 (n, parameters).
        counts: int64 (n, layers, c).

    Returns:
        float64 (n, layers, c).
    """
    found = np.zeros(counts.shape, np.float64)
    for row in range(which.size):
        for layer in range(starts.size):
            a, b = starts[layer], ends[layer]
            old = mask[which[row], a:b]
            nnz = 0
            for i in range(b - a):
                nnz += old[i]
            for c in range(counts.shape[2]):
                count = min(counts[row, layer, c], b - a)
                chosen = np.zeros(b - a, np.uint8)
                if count <= nnz:
                    _add_top(magnitudes[row, a:b], old, 1, count, chosen)
                else:
                    chosen[:] = old
                    _add_top(gradients[row, a:b], old, 0, count - nnz, chosen)
                total = 0.0
                for i in range(b - a):
                    total += gradients[row, a + i] * chosen[i]
                found[row, layer, c] = total
    return found


@numba.njit(cache=True, nogil=True)
def adamw(
    which: Any, weights: Any, first: Any, second: Any, gradients: Any, mask: Any, rates: Any,
    steps: Any, lr: Any, beta1: float, beta2: float, eps: float, decay: float,
) -> None:  # fmt: skip
    """One AdamW step in place, each network at its own step number, inactive weights left at 0.

    Args:
        which: (n,) rows of weights, moments and mask.
        gradients: (n, parameters), unmasked.
        rates: (networks, parameters) what the learning rate is multiplied by, but not the decay.
        steps, lr: (n,) the number of this step, counted from 1, and its learning rate.
    """
    one, b1, b2 = np.float32(1), np.float32(beta1), np.float32(beta2)
    for row in range(which.size):
        w, m, v = weights[which[row]], first[which[row]], second[which[row]]
        g, active, rate = gradients[row], mask[which[row]], rates[which[row]]
        step = np.float32(lr[row] / (1.0 - beta1 ** steps[row]))
        root = np.float32(1.0 / np.sqrt(1.0 - beta2 ** steps[row]))
        shrink = np.float32(1.0 - lr[row] * decay)
        for i in range(w.size):
            gradient = g[i] if active[i] else np.float32(0)
            m[i] = b1 * m[i] + (one - b1) * gradient
            v[i] = b2 * v[i] + (one - b2) * gradient * gradient
            w[i] = w[i] * shrink - step * rate[i] * m[i] / (np.sqrt(v[i]) * root + np.float32(eps))


@numba.njit(cache=True, nogil=True)
def zero_inactive(which: Any, values: Any, mask: Any) -> None:
    """Zeros rows `which` of `values` (networks, parameters) where the mask is 0."""
    for row in which:
        for i in range(values.shape[1]):
            if mask[row, i] == 0:
                values[row, i] = 0
