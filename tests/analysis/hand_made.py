"""Contenders and workloads written by hand, for the tests of this folder."""

import numpy as np

from analysis.reporting.contenders import ReportedRun, Seconds
from hwsim import Mask, Op, Workload, gemm

PHASES = ("forward", "grad_input", "grad_weight")


def workload(layers: int = 3, m: int = 64, n: int = 48, k: int = 32) -> Workload:
    """A step of `layers` linear layers, with one thing no mask reaches: a softmax."""
    ops = [gemm(m, n, k, phase=p, name=f"layer.{i}") for i in range(layers) for p in PHASES]
    ops.append(Op("softmax", "forward", dense_flops=5000, activation_bytes=8 * m * n))
    return Workload(tuple(ops), "by hand")


def masks(step: Workload, density: float, seed: int = 0) -> dict[str, Mask]:
    rng = np.random.default_rng(seed)
    return {name: Mask(rng.random(shape) < density) for name, shape in step.layers.items()}


def contender(
    name: str, family: str, rate: float, *, density: float = 1.0, end: float = 1.5, layers: int = 4
) -> ReportedRun:
    """A run whose loss falls from 3 to `end` and whose step costs `rate` seconds on 'ideal'."""
    steps = np.arange(0, 1001, 100)
    losses = end + (3.0 - end) * np.exp(-steps / 300)
    seconds = {
        device: Seconds(steps * rate * slow, steps * rate * slow * 0.8, steps * rate * slow * 1.3)
        for device, slow in (("ideal", 1.0), ("wafer", 1.7))
    }
    names = [f"encoder.{i}.ffn" for i in range(layers)]
    changes = np.arange(0, 1000, 200)
    costs = {
        device: {
            layer: {"forward": rate / 3, "grad_input": rate / 3, "grad_weight": rate / 4}
            for layer in names
        }
        for device in seconds
    }
    return ReportedRun(
        name, family, density, steps, losses, seconds, steps, losses + 0.1,
        changes if density < 1 else np.zeros(0),
        {n: np.linspace(1, density, 5) for n in names} if density < 1 else {},
        costs, (("learning rate", "0.002"),), {"ideal": True, "wafer": False},
    )  # fmt: skip


def contenders() -> list[ReportedRun]:
    return [
        contender("dense", "dense", 1e-3, end=1.6),
        contender("narrower dense", "narrower dense", 2.2e-4, end=1.9),
        contender("static 20 %", "static", 3e-4, density=0.2, end=1.8),
        contender("RigL 20 %", "rigl", 3.1e-4, density=0.2, end=1.62),
        contender("RigL 10 %", "rigl", 2e-4, density=0.1, end=1.75),
    ]
