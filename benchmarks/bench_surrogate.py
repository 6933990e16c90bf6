"""The surrogate against the runs it was fitted to: its held-out error, and its speed.

python benchmarks/bench_surrogate.py [--task mlm] [--network bert-1x16] [--runs 96]
"""

from __future__ import annotations

import argparse
import time

import torch

from rl.envs.formula import WhiteBoxConfig
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import dense, speed_ups
from rl.runs.prices import prices
from rl.runs.problems import Problem
from rl.surrogate.fit import fit, fit_kernels, record, surrogate


def main(network: str, task: str, runs: int, devices: tuple[str, ...]) -> None:
    problem = Problem(network, task)
    config = TrainingConfig(problems=((network, task),), devices=devices[:1], targets=(1.0, 1.0))
    start = time.process_time()
    recording = record(SparseTrainingEnv(config, min(runs, 32)), runs)
    recorded_s = time.process_time() - start
    fitted = fit(recording)
    e = fitted.error
    print(
        f"{network} on {task}: {len(recording.density)} recorded runs in {recorded_s:.0f} s; error "
        f"of progress on held-out runs {e.held_out:.3f} (training {e.train:.3f}; if density "
        f"changed nothing {e.as_dense:.3f}; one rate for all {e.one_rate:.3f}), "
        f"mean absolute {e.absolute:.3f}, R² {e.explained:.2f}"
    )
    print(f"  sensitivity {fitted.sensitivity.round(3)}")
    print(f"  exponent    {fitted.exponent.round(3)}, × (1 + {fitted.hardening.round(2)}·progress)")
    print(f"  boost       {fitted.boost.round(3)}")
    tables = [prices(problem, device) for device in devices]
    for device, table in zip(devices, tables, strict=True):
        kernels = fit_kernels(table)
        print(
            f"  {device}: overhead {kernels.overhead.mean():.2f}, slope {kernels.slope.mean():.2f},"
            f" largest error of a layer's time {kernels.error:.2f} of its dense time"
        )
    layers = len(fitted.sensitivity)
    source = surrogate([(fitted, table) for table in tables])
    env = WhiteBoxEnv(WhiteBoxConfig(layers=(layers, layers)), 256, source=source)
    start = time.process_time()
    speed_ups(env, dense)
    each = (time.process_time() - start) / 256
    print(f"  an episode of the surrogate {each * 1e6:.0f} µs, "
          f"of the real run {recorded_s / len(recording.density):.2f} s")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="bert-1x16")
    parser.add_argument("--task", default="mlm")
    parser.add_argument("--runs", type=int, default=96)
    parser.add_argument("--devices", default="wafer,zen4")
    given = parser.parse_args()
    torch.set_num_threads(1)
    main(given.network, given.task, given.runs, tuple(given.devices.split(",")))
