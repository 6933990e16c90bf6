"""Seconds of one tensor-core product on a GPU: launch, tiles and waves, L2, DRAM, power; in Numba.

Apart from `gpu_matmul`, to keep `import hwsim` light. The parameters are explained there.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def log_seconds(
    p: np.ndarray,
    bias: np.ndarray,
    shapes: np.ndarray,
    tiles: np.ndarray,
    splits: np.ndarray,
    card: np.ndarray,
    out: np.ndarray,
) -> None:
    """Natural logarithm of the seconds of each product, into `out`.

    Args:
        p: parameters in their own units, in the order of `gpu_matmul.PARAMETERS`.
        bias: log-time offset of each tile, (tiles,).
        shapes: rows m, outputs n, inputs k, (products, 3); or with two more columns: how many
            independent products, and the bytes of the rows' operand relative to m·k elements
            (less than one where an implicit product reads each element several times).
        tiles, splits: the kernel's candidates, (tiles, 2) and (splits,).
        card: SMs, L2 bytes, DRAM bytes/s, peak FLOP/s of this kernel on these operands, bytes of
            an operand element, bytes of an output element, bytes of a weight relative to dense,
            inputs that a tile takes at once.
    """
    launch_s, fill, efficiency, tile_s, dram_share, l2_rate, l2_share, reduce_s = p[:8]
    overlap, step_s, raster, throttle, throttle_s, choice, sharpness, quantised = p[8:16]
    sms, l2_bytes, dram_rate, peak, element, output, packed, grain = card
    l2_rate = l2_rate * sms
    dram_rate = dram_rate * dram_share
    l2_bytes = l2_bytes * l2_share
    power = 1.0 + overlap
    configurations = len(tiles) * len(splits)
    least = np.empty(configurations)
    compute = np.empty(configurations)
    cache = np.empty(configurations)
    memory = np.empty(configurations)
    after = np.empty(configurations)
    offset = np.empty(configurations)
    for i in range(len(shapes)):
        m, n, k = shapes[i, 0], shapes[i, 1], shapes[i, 2]
        batch, share = 1.0, 1.0
        if shapes.shape[1] > 3:
            batch, share = shapes[i, 3], shapes[i, 4]
        once = element * (m * k * share + n * k * packed) * batch
        footprint = once + output * m * n * batch
        spilled = footprint * _sigmoid(sharpness * math.log(footprint / l2_bytes))
        again = _sigmoid(sharpness * math.log(n * k * packed * element / l2_bytes))
        best = -1
        for t in range(len(tiles)):
            tm, tn = tiles[t, 0], tiles[t, 1]
            across_m = math.ceil(m / tm)
            across_n = math.ceil(n / tn)
            rate = peak / sms * efficiency * tm * tn / (tm * tn + 8.0 * fill * (tm + tn))
            for s in range(len(splits)):
                c = t * len(splits) + s
                split = splits[s]
                depth = math.ceil(k / split / grain) * grain
                turns = across_m * across_n * batch * split / sms
                waves = max(1.0, turns + quantised * (math.ceil(turns) - turns))
                step = max(2.0 * tm * tn * depth / rate, step_s * depth * element / 128.0)
                compute[c] = waves * (step + tile_s)
                cache[c] = turns * sms * depth * element * (tm + tn * packed) / l2_rate
                # Tiles run in strips `raster` tiles high; each wave reads its strip again.
                wave = max(1.0, min(sms / split, across_m * across_n))
                wide = min(across_n, max(wave / raster, 1.0))
                high = min(max(wave / wide, 1.0), across_m)
                passes = max(across_m * across_n / (wide * high), 1.0)
                read = passes * (high * tm * share + wide * tn * packed) * k * element * batch
                memory[c] = (spilled + max(read - once, 0.0) * again) / dram_rate
                after[c] = 0.0
                if split > 1.0:
                    after[c] = reduce_s + 8.0 * split * m * n * batch / l2_rate
                offset[c] = math.exp(bias[t])
                least[c] = (max(compute[c], cache[c], memory[c]) + after[c]) * offset[c]
                if best < 0 or least[c] < least[best]:
                    best = c
        total = 0.0
        base = 0.0
        limit = math.inf
        for turn in range(configurations + 1):
            c = best if turn == 0 else turn - 1
            if (turn > 0 and c == best) or least[c] > limit:
                continue
            top = max(compute[c], cache[c], memory[c])
            whole = (
                (compute[c] / top) ** power + (cache[c] / top) ** power + (memory[c] / top) ** power
            ) ** (1.0 / power)
            log_time = math.log((top * whole + after[c]) * offset[c])
            if turn == 0:
                base = log_time
                limit = math.exp(base) * math.exp(8.0 * choice)
            total += math.exp((base - log_time) / choice)
        log_time = base - choice * math.log(total)
        slow = min(throttle, 0.6) * _sigmoid((log_time - math.log(throttle_s)) / 0.3)
        out[i] = math.log(math.exp(log_time) / (1.0 - slow) + launch_s)
