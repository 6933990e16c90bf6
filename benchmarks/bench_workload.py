"""How long it takes to observe a training step: `python benchmarks/bench_workload.py [MODEL…]`.

Prints, for each model, the seconds of `sparse_train.workload` (median of the rounds, 8 × 128
tokens) and microseconds per op. The goal is a BERT-base in under two seconds on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sparse_train import models
from sparse_train.workload import workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["bert-tiny", "bert-base"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'model':<14}{'median s':>10}{'first s':>10}{'ops':>7}{'µs/op':>8}{'TFLOP':>9}")
    for name in options.models:
        model, batch = models.build(name, 8, 128)
        seconds = []
        for _ in range(max(1, options.rounds)):
            start = time.perf_counter()
            step = workload(model, batch)
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds)
        print(
            f"{name:<14}{median:>10.3f}{seconds[0]:>10.3f}{len(step):>7}"
            f"{1e6 * median / len(step):>8.0f}{step.dense_flops / 1e12:>9.4f}"
        )


if __name__ == "__main__":
    main()
