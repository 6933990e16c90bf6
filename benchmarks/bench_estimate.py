"""Estimates a second: BERT-base's 72 linear layers, 8 × 128 tokens, three phases, one core."""

from __future__ import annotations

import time

import numpy as np

import hwsim

LAYERS = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
TOKENS = 8 * 128
ROUNDS = 15


def step(masks: dict[str, hwsim.Mask]) -> hwsim.Workload:
    """The 216 products of a training step under these masks."""
    return hwsim.Workload(
        tuple(
            hwsim.gemm(TOKENS, *mask.shape, mask, phase, name=name)
            for phase in ("forward", "grad_input", "grad_weight")
            for name, mask in masks.items()
        )
    )


def main() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{block}.{i}": rng.random(shape, dtype=np.float32) < 0.1
        for block in range(12)
        for i, shape in enumerate(LAYERS)
    }
    read = _best(lambda: [a.view(np.uint64).max() for a in arrays.values()])
    size = sum(a.size for a in arrays.values())
    print(f"{size / 1e6:.0f} M mask entries; reading them once: {read * 1e3:.1f} ms")
    print("fresh: new Mask objects over existing arrays (no copy), nothing counted yet;")
    print("cached: the same Workload object again. Estimates of a whole step a second:")
    print(f"{'device':>12} {'fresh':>8} {'cached':>8}")
    for name in hwsim.device_names():
        device = hwsim.load_device(name)
        workloads = []

        def fresh(device=device, workloads=workloads) -> None:
            masks = {n: hwsim.Mask(a, copy=False) for n, a in arrays.items()}
            workloads[:] = [step(masks)]
            device.estimate(workloads[0])

        cost = _best(fresh)
        again = _best(lambda: device.estimate(workloads[0]))  # noqa: B023
        print(f"{name:>12} {1 / cost:8.0f} {1 / again:8.0f}")


def _best(work) -> float:
    """Seconds of the fastest of ROUNDS rounds, after one to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
