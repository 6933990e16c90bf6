"""The GPU model's speed: estimates of a BERT-base step a second, masks cached and masks fresh.

Run: python benchmarks/bench_gpu_model.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from hwsim import Mask, Workload, gemm, load_device

ROWS = 32 * 128
LAYERS = {"query": (768, 768), "key": (768, 768), "value": (768, 768), "attention": (768, 768),
          "intermediate": (3072, 768), "output": (768, 3072)}  # fmt: skip
TILE = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)


def bert_base() -> Workload:
    """The maskable products of a BERT-base step: 12 blocks, three phases, bfloat16."""
    return Workload(
        tuple(
            gemm(ROWS, n, k, None, phase, "bfloat16", name=f"{block}.{name}")
            for phase in ("forward", "grad_input", "grad_weight")
            for block in range(12)
            for name, (n, k) in LAYERS.items()
        )
    )


def masks(workload: Workload) -> dict[str, Mask]:
    """A transposable 2:4 mask per layer, each its own object."""
    return {
        name: Mask(np.tile(TILE, (n // 4, k // 4)), copy=False)
        for name, (n, k) in workload.layers.items()
    }


def best_rate(tasks: Iterable[Callable[[], object]]) -> float:
    """Tasks a second, by the fastest one: other work on the machine can only slow one down."""
    least = float("inf")
    for task in tasks:
        start = time.perf_counter()
        task()
        least = min(least, time.perf_counter() - start)
    return 1 / least


def main() -> None:
    dense = bert_base()
    h200 = load_device("h200")
    step = dense.with_masks(masks(dense))
    h200.estimate(step)
    print(f"cached masks: {best_rate([lambda: h200.estimate(step)] * 200):.0f} estimates/s")
    fresh = [dense.with_masks(masks(dense)) for _ in range(12)]
    tasks = [lambda w=w: h200.estimate(w) for w in fresh]
    print(f"fresh transposable 2:4 masks: {best_rate(tasks):.0f} estimates/s")
    words = [m.array.view(np.uint64) for m in step.masks.values()]
    reading = best_rate([lambda: [w.sum() for w in words]] * 12)
    print(f"reading those masks once: {reading:.0f} times/s")
    both = [h200.estimate(w).seconds * 1e3 for w in (dense, step)]
    print(f"BERT-base linears, {ROWS} rows: dense {both[0]:.2f} ms, 2:4 {both[1]:.2f} ms (h200)")


if __name__ == "__main__":
    main()
