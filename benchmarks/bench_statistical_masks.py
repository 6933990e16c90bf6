"""Masks by their statistics beside random masks: prices and spreads, device by device.

    python -m benchmarks.bench_statistical_masks [--rows] [--sizes 256x1024,4096x4096]

Each row is one product under masks of one pattern, size and density: the mean price over random
masks, drawn here for comparison alone, and that of a `StatisticalMask`; their standard
deviation, and what `spread` says. "Noise" allows twice the error of that mean beside the 1 %. A
spread counts as kept within a factor of 1.5, or where both are under 0.1 % of the price; its
"noise" allows twice the error that as many masks leave, by the law that ours says: of what happens
to one mask in 400, a thousand masks show two or three, or none.

What happens to one mask in twenty, twenty masks need not show. So a row that misses either is asked
again with more masks, and judged by these: "again".
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwsim import Device, InputError, Mask, Op, gemm, load_device
from hwsim.errors import unknown
from hwsim.masks.statistical import StatisticalMask, spread
from sparse_train.patterns import projection

DEVICES = ("a100", "h200", "rtx3090", "zen3", "zen4", "i9-10940x", "ideal", "systolic",
           "sigma-like", "tpu-like", "wafer")  # fmt: skip
PATTERNS = ("unstructured", "fan_in", "2:4", "transposable 2:4", "block:32,32", "group:32",
            "neuron", "neuron:1", "balanced:64", "balanced:8,8", "v_n_m:64,2,8",
            "v_n_m:64,2,32")  # fmt: skip
SIZES = ("256x1024", "1024x1024", "1024x4096", "4096x4096", "4096x16384")
DENSITIES = (0.02, 0.1, 0.5)
OWN = {"2:4": 0.5, "transposable 2:4": 0.5, "v_n_m:64,2,8": 0.25, "v_n_m:64,2,32": 0.0625}
PHASES = ("forward", "grad_input", "grad_weight")
_NEGLIGIBLE = 1e-3
Key = tuple[str, str]  # device, phase


class Ours(NamedTuple):
    """Seconds under statistics.

    `unsure` over the root of so many masks is the relative error of their variance.
    """

    mean: float
    spread: float
    unsure: float
    ways: int


@dataclass(frozen=True)
class Judged:
    """One row: ours against so many random masks."""

    ratio: float
    said: float
    deviation: float
    masks: int
    unsure: float

    @property
    def missed(self) -> float:
        return abs(self.ratio - 1.0)

    @property
    def within(self) -> bool:
        return self.missed <= 0.01

    @property
    def within_noise(self) -> bool:
        return self.missed <= 0.01 + 2.0 * self.deviation / self.masks**0.5

    @property
    def spread_kept(self) -> bool:
        low, high = sorted((self.said, self.deviation))
        return high <= max(1.5 * low, _NEGLIGIBLE)

    @property
    def spread_within_noise(self) -> bool:
        off = abs(self.said**2 - self.deviation**2)
        return self.spread_kept or off <= 2.0 * self.unsure * self.said**2

    def __str__(self) -> str:
        return (f"{self.ratio - 1:+.3%}, spread {self.said:.3%} for {self.deviation:.3%} "
                f"({self.masks} masks)")  # fmt: skip


def prices(
    ops: dict[Key, tuple[Device, Op]], shape: tuple[int, int], nnz: int, pattern: str, seeds: range
) -> dict[Key, list[float]]:
    """Seconds of each op under each of some random masks, which are drawn one at a time."""
    found: dict[Key, list[float]] = {key: [] for key in ops}
    for seed in seeds:
        scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
        mask = Mask(projection(pattern).project(scores, nnz), copy=False)
        for key, (device, op) in ops.items():
            found[key].append(device.estimate(op.with_mask(mask)).seconds)
    return found


def judged(ours: Ours, seconds: list[float]) -> Judged:
    mean, many = float(np.mean(seconds)), len(seconds)
    unsure = ours.unsure * (1.0 / many + 1.0 / ours.ways) ** 0.5
    return Judged(ours.mean / mean, ours.spread / mean, float(np.std(seconds)) / mean, many, unsure)


def ours_of(device: Device, op: Op) -> Ours:
    each = np.array([found[0].seconds for found in device.over_ways(op)])
    said, mean = spread(device, op), device.estimate(op).seconds
    away = (each - each.mean()) / said if said > 0.0 else np.zeros(1)
    return Ours(mean, said, max(float(np.mean(away**4)) - 1.0, 0.0) ** 0.5, each.size)


def rows_of(
    devices: dict[str, Device], shape: tuple[int, int], pattern: str, density: float,
    options: argparse.Namespace,
) -> Iterator[tuple[Key, Judged, Judged]]:  # fmt: skip
    """Each row as judged first, and again where it missed."""
    known = StatisticalMask(shape, density, pattern)
    ops: dict[Key, tuple[Device, Op]] = {}
    ours: dict[Key, Ours] = {}
    for name, phase in itertools.product(devices, PHASES):
        dtype = "float32" if name.startswith(("zen", "i9")) else "bfloat16"
        op = gemm(options.tokens, *shape, None, phase, dtype)
        ops[name, phase] = devices[name], op
        ours[name, phase] = ours_of(devices[name], op.with_mask(known))
    first = prices(ops, shape, known.nnz, pattern, range(options.masks))
    once = {key: judged(ours[key], seconds) for key, seconds in first.items()}
    more = {key: ops[key] for key, one in once.items() if not (one.within and one.spread_kept)}
    later = prices(more, shape, known.nnz, pattern, range(options.masks, options.again))
    for key, one in once.items():
        yield key, one, judged(ours[key], first[key] + later[key]) if key in more else one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=20)
    parser.add_argument("--again", type=int, default=200, help="masks of rows that miss")
    parser.add_argument("--rows", action="store_true", help="every row that misses again")
    parser.add_argument("--sizes", default=",".join(SIZES[:3]), help=f"of {', '.join(SIZES)}")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--patterns", default=";".join(PATTERNS), help="with semicolons between")
    options = parser.parse_args()
    devices = {name: load_device(name) for name in options.devices.split(",")}
    found: dict[str, list[tuple[Judged, Judged]]] = {name: [] for name in devices}
    patterns = options.patterns.split(";")
    sizes = [_shape(size) for size in options.sizes.split(",")]
    for shape, pattern in itertools.product(sizes, patterns):
        for density in (OWN[pattern],) if pattern in OWN else DENSITIES:
            for (name, phase), once, again in rows_of(devices, shape, pattern, density, options):
                found[name].append((once, again))
                if options.rows and not (again.within_noise and again.spread_within_noise):
                    print(f"  {name} {shape} {pattern} {density} {phase}: {again}", flush=True)
    print(f"{'device':>12} {'rows':>5} {'worst':>8} {'mean':>8} {'1 %':>7} {'noise':>7} "
          f"{'spread':>7} {'noise':>7} | again {'worst':>8} {'1 %':>7} {'noise':>7} {'spread':>7} "
          f"{'noise':>7}")  # fmt: skip
    for name, rows in found.items():
        once, again = zip(*rows, strict=True)
        worst, latest = (max(one.missed for one in some) for some in (once, again))
        mean = float(np.mean([one.missed for one in once]))
        print(f"{name:>12} {len(rows):5d} {worst:8.2%} {mean:8.3%} {_shares(once)} | "
              f"      {latest:8.2%} {_shares(again)}")  # fmt: skip


def _shape(size: str) -> tuple[int, int]:
    if size not in SIZES:
        raise InputError(unknown("size", size, SIZES))
    n_out, n_in = size.split("x")
    return int(n_out), int(n_in)


def _shares(rows: Sequence[Judged]) -> str:
    kept = ([one.within for one in rows], [one.within_noise for one in rows],
            [one.spread_kept for one in rows],
            [one.spread_within_noise for one in rows])  # fmt: skip
    return " ".join(f"{np.mean(some):7.1%}" for some in kept)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_statistical_masks: error: {error}") from None
