"""Attention and LayerNorm of many small networks, forwards and back, in Numba.

Sequences of a few tokens leave a batched matrix product idle; here a window stays in the cache.
All arrays are float32 and C-contiguous; n is the number of networks.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

# Sums may be reordered; NaN stays NaN, by which a run that diverges is known.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def norm(x: Any, weight: Any, bias: Any, eps: float, y: Any, centred: Any, inverse: Any) -> None:
    """LayerNorm of x (n, rows, width) into y.

    Args:
        weight, bias: (n, width).
        centred: (n, rows, width), filled with x in units of its deviation.
        inverse: (n, rows), filled with one over the deviation.
    """
    width = x.shape[2]
    share = np.float32(1.0 / width)
    for i in range(x.shape[0]):
        w, b = weight[i], bias[i]
        for r in range(x.shape[1]):
            row, out, middle = x[i, r], y[i, r], centred[i, r]
            mean, square = np.float32(0), np.float32(0)
            for c in range(width):
                mean += row[c]
            mean *= share
            for c in range(width):
                square += (row[c] - mean) * (row[c] - mean)
            scale = np.float32(1) / np.sqrt(square * share + np.float32(eps))
            inverse[i, r] = scale
            for c in range(width):
                middle[c] = (row[c] - mean) * scale
                out[c] = middle[c] * w[c] + b[c]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def norm_back(
    g: Any, centred: Any, inverse: Any, weight: Any, gx: Any, gweight: Any, gbias: Any
) -> None:
    """Gradients of `norm`: gx is filled; gweight and gbias (n, width) are added to."""
    width = g.shape[2]
    share = np.float32(1.0 / width)
    for i in range(g.shape[0]):
        w, gw, gb = weight[i], gweight[i], gbias[i]
        for r in range(g.shape[1]):
            row, middle, out = g[i, r], centred[i, r], gx[i, r]
            mean, along = np.float32(0), np.float32(0)
            for c in range(width):
                weighted = row[c] * w[c]
                mean += weighted
                along += weighted * middle[c]
                gw[c] += row[c] * middle[c]
                gb[c] += row[c]
            mean *= share
            along *= share
            for c in range(width):
                out[c] = (row[c] * w[c] - mean - middle[c] * along) * inverse[i, r]


@functools.cache
def attention(tokens: int, heads: int, head_width: int) -> tuple[Any, Any]:
    """Kernels (forward, back) for one shape; constants let the compiler unroll what is short.

    forward(q, k, v, out, shares): q, k, v, out (n, windows, tokens, heads · head_width); shares
    (n, windows, heads, tokens, tokens) is filled with the softmax.
    back(g, q, k, v, shares, gq, gk, gv): gq, gk, gv are filled.
    """
    scale = np.float32(head_width**-0.5)

    @numba.njit(cache=True, nogil=True, fastmath=_FAST)
    def forward(q: Any, k: Any, v: Any, out: Any, shares: Any) -> None:
        for i in range(q.shape[0]):
            for b in range(q.shape[1]):
                for h in range(heads):
                    first = h * head_width
                    for t in range(tokens):
                        share = shares[i, b, h, t]
                        top = np.float32(-np.inf)
                        for s in range(tokens):
                            dot = np.float32(0)
                            for d in range(head_width):
                                dot += q[i, b, t, first + d] * k[i, b, s, first + d]
                            share[s] = dot * scale
                            top = max(top, share[s])
                        total = np.float32(0)
                        for s in range(tokens):
                            share[s] = np.exp(share[s] - top)
                            total += share[s]
                        for d in range(head_width):
                            out[i, b, t, first + d] = 0
                        for s in range(tokens):
                            share[s] /= total
                            for d in range(head_width):
                                out[i, b, t, first + d] += share[s] * v[i, b, s, first + d]

    @numba.njit(cache=True, nogil=True, fastmath=_FAST)
    def back(g: Any, q: Any, k: Any, v: Any, shares: Any, gq: Any, gk: Any, gv: Any) -> None:
        towards = np.empty(tokens, np.float32)
        gq[:] = 0
        gk[:] = 0
        gv[:] = 0
        for i in range(q.shape[0]):
            for b in range(q.shape[1]):
                for h in range(heads):
                    first = h * head_width
                    for t in range(tokens):
                        share = shares[i, b, h, t]
                        mean = np.float32(0)
                        for s in range(tokens):
                            dot = np.float32(0)
                            for d in range(head_width):
                                dot += g[i, b, t, first + d] * v[i, b, s, first + d]
                                gv[i, b, s, first + d] += share[s] * g[i, b, t, first + d]
                            towards[s] = dot
                            mean += dot * share[s]
                        for s in range(tokens):
                            slope = share[s] * (towards[s] - mean) * scale
                            for d in range(head_width):
                                gq[i, b, t, first + d] += slope * k[i, b, s, first + d]
                                gk[i, b, s, first + d] += slope * q[i, b, t, first + d]

    return forward, back
