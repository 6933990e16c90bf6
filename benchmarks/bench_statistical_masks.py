"""Masks by their statistics beside random masks: prices and spreads, device by device.

    python benchmarks/bench_statistical_masks.py [--masks 20] [--rows] [--large]

Each row is one product under masks of one pattern, size and density: the mean price over random
masks, drawn here for comparison alone, and that of a `StatisticalMask`; their standard
deviation, and what `spread` says. A spread counts as kept within a factor of 1.5, or where both are
under 0.1 % of the price.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from hwsim import InputError, Mask, gemm, load_device
from hwsim.masks.statistical import StatisticalMask, spread
from sparse_train.patterns import projection

DEVICES = ("a100", "h200", "zen3", "ideal", "systolic", "sigma-like", "tpu-like", "wafer")
PATTERNS = ("unstructured", "fan_in", "2:4", "transposable 2:4", "block:32,32", "group:32",
            "neuron", "neuron:1", "balanced:64", "v_n_m:64,2,8", "v_n_m:64,2,32")  # fmt: skip
SIZES = ((256, 1024), (1024, 1024), (1024, 4096))
LARGE = ((4096, 4096), (4096, 16384))
DENSITIES = (0.02, 0.1, 0.5)
OWN = {"2:4": 0.5, "transposable 2:4": 0.5, "v_n_m:64,2,8": 0.25, "v_n_m:64,2,32": 0.0625}
_NEGLIGIBLE = 1e-3


def drawn(shape: tuple[int, int], nnz: int, pattern: str, many: int) -> list[Mask]:
    found = []
    for seed in range(many):
        scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
        found.append(Mask(projection(pattern).project(scores, nnz), copy=False))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=20)
    parser.add_argument("--rows", action="store_true", help="every row that misses")
    parser.add_argument("--large", action="store_true", help="4096 × 4096 and 4096 × 16384 too")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--devices", default=",".join(DEVICES))
    options = parser.parse_args()
    names = options.devices.split(",")
    devices = {name: load_device(name) for name in names}
    missed: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, list[bool]] = {name: [] for name in names}
    noise: dict[str, list[bool]] = {name: [] for name in names}
    for shape, pattern in itertools.product(SIZES + (LARGE if options.large else ()), PATTERNS):
        for density in (OWN[pattern],) if pattern in OWN else DENSITIES:
            known = StatisticalMask(shape, density, pattern)
            masks = drawn(shape, known.nnz, pattern, options.masks)
            for name, phase in itertools.product(names, ("forward", "grad_input", "grad_weight")):
                dtype = "float32" if name.startswith("zen") else "bfloat16"
                op = gemm(options.tokens, *shape, None, phase, dtype)
                prices = [devices[name].estimate(op.with_mask(m)).seconds for m in masks]
                ours = devices[name].estimate(op.with_mask(known)).seconds
                mean, deviation = float(np.mean(prices)), float(np.std(prices))
                said = spread(devices[name], op.with_mask(known))
                miss = abs(ours / mean - 1.0)
                fits = max(said, deviation) <= max(1.5 * min(said, deviation), _NEGLIGIBLE * mean)
                missed[name].append(miss)
                error = 2.0 * deviation / mean / options.masks**0.5
                noise[name].append(miss <= 0.01 + error)
                kept[name].append(fits)
                if options.rows and (not noise[name][-1] or not fits):
                    print(f"  {name} {shape} {pattern} {density} {phase}: {ours / mean - 1:+.3%}, "
                          f"spread {said / mean:.3%} for {deviation / mean:.3%}")  # fmt: skip
    print(f"{'device':>12} {'rows':>5} {'worst':>8} {'mean':>8} {'within 1 %':>11} {'noise':>7} "
          f"{'spread':>7}")  # fmt: skip
    for name in names:
        found = np.array(missed[name])
        print(f"{name:>12} {len(found):5d} {found.max():8.2%} {found.mean():8.3%} "
              f"{(found <= 0.01).mean():11.1%} {np.mean(noise[name]):7.1%} "
              f"{np.mean(kept[name]):7.1%}")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_statistical_masks: error: {error}") from None
