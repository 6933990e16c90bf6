"""Estimates of a BERT-base training step a second, on one core, on every shipped device.

    python benchmarks/bench_estimate.py [DEVICE…] [--rounds 25]

The step has 72 linear layers (12 × [4 of 768×768, 3072×768, 768×3072]), 8 × 128 tokens and three
phases: 216 products. Two figures for each device:

- fresh: 72 new Mask objects over boolean arrays that are there already (not copied, nothing counted
  yet), put on the step, and the estimate. So every round reads all 85 MB of masks.
- cached: the same step again. What a device said about a mask is kept with the mask.

The best of the rounds counts, since other work on the machine can only slow one down. The fresh
figure is bound by reading the masks; so the same run times how long numpy's sum takes to read them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from hwsim import InputError, Mask, Workload, device_names, gemm, load_device

LAYERS = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
BLOCKS = 12
TOKENS = 8 * 128
DENSITY = 0.1
PHASES = ("forward", "grad_input", "grad_weight")
TARGETS = dict.fromkeys(("wafer", "systolic", "tpu-like", "sigma-like"), (100, 1000))


def bert_base(dtype: str) -> Workload:
    """The products of the 72 linear layers, dense."""
    return Workload(
        tuple(
            gemm(TOKENS, n, k, None, phase, dtype, name=f"{block}.{i}")
            for phase in PHASES
            for block in range(BLOCKS)
            for i, (n, k) in enumerate(LAYERS)
        )
    )


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of `rounds` rounds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def rates(name: str, arrays: dict[str, np.ndarray], rounds: int) -> tuple[float, float]:
    """Step estimates a second on a device, with fresh masks and with cached ones."""
    device = load_device(name)
    # GPUs are asked about what they train in; the CPU's kernels are float32.
    dense = bert_base("bfloat16" if device.model == "gpu" else "float32")
    kept: list[Workload] = []

    def fresh() -> None:
        masks = {n: Mask(a, copy=False) for n, a in arrays.items()}
        step = Workload(tuple(op.with_mask(masks[op.name]) for op in dense))
        device.estimate(step)
        kept[:] = [step]

    fresh_s = best_s(fresh, rounds)
    return 1 / fresh_s, 1 / best_s(lambda: device.estimate(kept[0]), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("devices", nargs="*", metavar="DEVICE")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    arrays = {
        f"{block}.{i}": rng.random(shape, dtype=np.float32) < DENSITY
        for block in range(BLOCKS)
        for i, shape in enumerate(LAYERS)
    }
    size = sum(a.size for a in arrays.values())
    words = [a.view(np.uint64) for a in arrays.values()]
    read_s = best_s(lambda: [w.sum() for w in words], options.rounds)
    print(
        f"{len(arrays)} masks of {size / 1e6:.0f} MB at density {DENSITY}. numpy's sum reads them "
        f"in {read_s * 1e3:.1f} ms ({size / read_s / 1e9:.0f} GB/s), {1 / read_s:.0f} a second"
    )
    print("fresh: new Mask objects over existing arrays, not copied, nothing counted yet")
    print("cached: the same step again\n")
    print(f"{'device':>12} {'fresh/s':>8} {'cached/s':>9}   {'of reading them alone':>21}")
    for name in options.devices or device_names():
        fresh, cached = rates(name, arrays, options.rounds)
        goal = ""
        if name in TARGETS:
            goal = "   targets {}/s and {}/s".format(*TARGETS[name])
        print(f"{name:>12} {fresh:8.0f} {cached:9.0f}   {fresh * read_s:21.0%}{goal}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_estimate: error: {error}") from None
