"""Measured training steps beside their estimates: the suite's encoders as workloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hwsim import Device, Mask, Workload
from hwsim.measured.record import STEP, Measurement


def steps(records: Sequence[Measurement], device: Device | None) -> list[dict[str, Any]]:
    """One row per measured step: time, gain over the dense one, and what `device` says."""
    measured = {r.kernel: r for r in records if r.phase == STEP}
    found = []
    for name, record in measured.items():
        dense = measured.get(f"{name.split()[0]} dense")
        estimated = device.estimate(workload_of(record)).seconds if device else None
        against = device.estimate(workload_of(dense)).seconds if device and dense else None
        found.append({
            "step": name, "measured_s": record.median_s,
            "speed_up": dense.median_s / record.median_s if dense else None,
            "estimated_s": estimated,
            "estimated_speed_up": against / estimated if against and estimated else None,
        })  # fmt: skip
    return found


def workload_of(record: Measurement) -> Workload:
    """The workload of a step's record: `m` rows, width `n`, `k` encoder blocks."""
    import torch

    from hwsim.kernels.gpu.suite.cases import mask_of
    from hwsim.kernels.gpu.suite.steps import encoder, kind_of
    from hwsim.measured.gpu_suite import Case
    from sparse_train.workload import workload

    case = Case(record.kernel, record.phase, record.m, record.n, record.k, record.dtype)
    model, kind = kind_of(case)
    made = encoder(replace(case, kernel=f"{model} dense"), "meta")
    x = torch.empty(case.m, case.n, device="meta", dtype=torch.bfloat16)
    step = workload(made, x, dtype=record.dtype)
    if kind == "dense":
        return step
    masks = {}
    for name, (n, k) in step.layers.items():
        g = torch.Generator().manual_seed(n + k)
        array = mask_of(Case("2:4", "forward", 1, n, k), g, "cpu").numpy()
        if kind == "2:4":
            array = _one_way(array.shape)
        masks[name] = Mask(array, copy=False)
    return step.with_masks(masks)


def _one_way(shape: tuple[int, int]) -> Any:
    """2:4 along the inputs alone: the first two of each four."""
    import numpy as np

    return np.tile(np.array([True, True, False, False]), (shape[0], shape[1] // 4))
