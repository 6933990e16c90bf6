"""Memory over long work: 100,000 estimates, 5,000 training steps, 500 episodes.

    python benchmarks/bench_bounds.py [--share 0.1] [estimates|steps|episodes …]

Resident memory (MB) after each tenth of the work. Flat means: the second half adds no more than a
hundredth, or 4 MB, to what the first half had reached.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

TENTHS = 10


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def estimates(count: int) -> Iterator[None]:
    """Fresh masks and fresh sizes on four devices, as a search over masks makes them."""
    from hwsim import Mask, Workload, gemm, load_device, net_time

    devices = [load_device(name) for name in ("ideal", "wafer", "sigma-like", "zen4")]
    rng = np.random.default_rng(0)
    for i in range(count):
        m, n, k = (int(s) for s in rng.integers(1, 64, 3) * 4)
        mask = Mask(rng.random((n, k)) < 0.2)
        step = Workload(tuple(gemm(m, n, k, mask, p) for p in ("forward", "grad_weight")))
        net_time(devices[i % len(devices)], [(step, 3)])
        yield


def steps(count: int) -> Iterator[None]:
    """A run of BERT in its smallest form under RigL, in pieces that are gone on with."""
    from sparse_train.runs.config import TrainConfig
    from sparse_train.trainer import train

    words = ["mask", "weight", "grow", "drop", "layer", "dense", "sparse", "step", "net", "time"]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text"
        text.mkdir()
        for i in range(60):
            (text / f"{i}.txt").write_text(" ".join(rng.choice(words, 60)))
        config = TrainConfig.from_json({
            "task_options": {
                "text": str(text), "vocabulary_size": 280, "tokens": 16, "evaluation_windows": 8,
            },
            "model_options": {"layers": 1, "width": 16, "heads": 2, "ffn": 32},
            "algorithm": "rigl", "density": 0.3, "update_interval": 10, "steps": count,
            "batch_size": 4, "warmup_steps": 2, "eval_interval": count, "threads": 1,
            "checkpoint_interval": count,
        })  # fmt: skip
        seen = 0
        told: list[float] = []

        def progress(at: object) -> None:
            nonlocal seen
            seen += 1
            if seen % (count // TENTHS) == 0:
                told.append(resident_mb())

        train(config, folder / "run", progress=progress)
    _told.extend(told[:TENTHS])
    yield


_told: list[float] = []


def episodes(count: int) -> Iterator[None]:
    """Whole episodes on small real networks, by a random policy."""
    from rl.envs.gym import SparseTraining

    env = SparseTraining()
    env.action_space.seed(0)
    for seed in range(count):
        env.reset(seed=seed)
        for _ in itertools.count():
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                break
        yield


WORK: dict[str, tuple[Callable[[int], Iterator[None]], int]] = {
    "estimates": (estimates, 100_000), "steps": (steps, 5_000), "episodes": (episodes, 500),
}  # fmt: skip


def growth(work: Callable[[int], Iterator[None]], count: int) -> list[float]:
    """Resident MB after each tenth of the work."""
    _told.clear()
    found = []
    for number, _ in enumerate(work(count), 1):
        if number % max(count // TENTHS, 1) == 0:
            found.append(resident_mb())
    return found or list(_told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="*", metavar="WORK")
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args()
    for name in given.work or WORK:
        if name not in WORK:
            parser.error(f"work: value is {name!r}; allowed: {', '.join(WORK)}")
        work, count = WORK[name]
        count = max(TENTHS, round(count * given.share))
        found = growth(work, count)
        middle, end = found[len(found) // 2 - 1], found[-1]
        flat = end - middle <= max(0.01 * middle, 4.0)
        said = "flat" if flat else f"grows by {end - middle:.1f} MB in the second half"
        print(f"{count:7d} {name:10s} {' '.join(f'{mb:.0f}' for mb in found)} MB: {said}")


if __name__ == "__main__":
    main()
