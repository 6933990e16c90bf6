"""A training run's folder → a ReportedRun that can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.reporting.contenders import FAMILIES, ReportedRun, Seconds
from hwsim import Device, InputError, Workload, units

if TYPE_CHECKING:
    from sparse_train.record import TrainingRecord
    from sparse_train.runs.config import TrainConfig

# Algorithms are called in tables what their papers call them.
_CALLED = {"set": "SET", "rigl": "RigL", "srigl": "SRigL", "snfs": "SNFS", "gmp": "GMP"}


def contender(
    folder: Path,
    devices: Sequence[Device],
    name: str | None = None,
    family: str | None = None,
    *,
    widest: int = 0,
) -> ReportedRun:
    """Loads a run and prices it on each device, with the masks that it had.

    Args:
        folder: of a run that is complete or under way.
        name, family: its label and colour; by default what its settings say.
        widest: width of the widest model it is compared with.

    Raises:
        InputError: no run there, a broken file, no validation yet, or a device that cannot run it.
    """
    from sparse_train.record import TrainingRecord

    record = TrainingRecord.load(folder)
    evaluations = record.evaluations
    if record.steps == 0 or len(evaluations) == 0:
        raise InputError(f"run folder {folder}: no step and validation in it yet; train it first")
    density = _density(record)
    steps, densities = _densities(record)
    # One pass over the masks serves all devices; the last of them stay.
    times = record.net_times(devices)
    last = record.last_step
    return ReportedRun(
        name=name or label(record.config, density, widest),
        family=family or _family(record.config, widest),
        density=density,
        steps=evaluations["step"].to_numpy(),
        losses=evaluations["loss"].to_numpy(),
        seconds={
            d.name: Seconds(time.seconds, time.low_s, time.high_s)
            for d, time in zip(devices, times, strict=True)
        },
        train_steps=record.training["step"].to_numpy(),
        train_losses=record.training["loss"].to_numpy(),
        density_steps=steps,
        densities=densities,
        layers={d.name: _by_layer_and_phase(d, last) for d in devices},
        facts=_facts(record),
        verified={d.name: d.estimate(last).verified for d in devices},
    )


def label(config: TrainConfig, density: float, widest: int = 0) -> str:
    """What a run is called: its algorithm and density, or what kind of dense model it is."""
    if config.algorithm == "dense":
        return _family(config, widest)
    return f"{_CALLED.get(config.algorithm, config.algorithm)} {units.percent(density)}"


def widest(folders: Sequence[Path]) -> int:
    """Width of the widest model among some runs."""
    from sparse_train.record import TrainingRecord

    return max(_width(TrainingRecord.load(folder).config) for folder in folders)


def distinct_names(contenders: Sequence[ReportedRun], folders: Sequence[Path]) -> list[ReportedRun]:
    """The contenders; those of one name get their folder's name too, or their place."""
    often = Counter(c.name for c in contenders)
    made: list[ReportedRun] = []
    for number, (c, folder) in enumerate(zip(contenders, folders, strict=True), start=1):
        name = c.name
        if often[name] > 1:
            name = f"{c.name} ({folder.name})"
            if name in {one.name for one in made}:
                name = f"{c.name} ({folder.name}, {number})"
        made.append(replace(c, name=name))
    return made


def _family(config: TrainConfig, widest: int = 0) -> str:
    """Its colour. A dense model is a narrower one only beside a wider one."""
    if config.algorithm == "dense":
        return "narrower dense" if _width(config) < widest else "dense"
    return config.algorithm if config.algorithm in FAMILIES else "other"


def _width(config: TrainConfig) -> int:
    """Of a BERT; 0 for other models, which are not told apart by width."""
    from sparse_train.models import bert

    if config.model != "bert" or config.preset not in bert.PRESETS:
        return 0
    return int(config.model_options.get("width", bert.PRESETS[config.preset].width))


def _density(record: TrainingRecord) -> float:
    """Active share of the weights under the last masks; 1 without masks."""
    if not record.mask_versions:
        return 1.0
    last = record.densities.filter(record.densities["version"] == record.densities["version"].max())
    return int(last["nnz"].sum()) / int(last["size"].sum())


def _densities(record: TrainingRecord) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first step of each mask version, and layer → its density in each of them."""
    steps = np.array([first for first, _ in record.mask_versions], dtype=float)
    layers = {
        str(key[0]): rows.sort("version")["density"].to_numpy()
        for key, rows in record.densities.group_by("layer", maintain_order=True)
    }
    return steps, layers


def _by_layer_and_phase(device: Device, step: Workload) -> dict[str, dict[str, float]]:
    costs: dict[str, dict[str, float]] = {}
    for op, price in device.breakdown(step):
        phases = costs.setdefault(op.name or op.kind, {})
        phases[op.phase] = phases.get(op.phase, 0.0) + price.seconds
    return costs


def _facts(record: TrainingRecord) -> tuple[tuple[str, str], ...]:
    config = record.config
    return (
        ("learning rate", f"{config.learning_rate:g}"),
        ("seed", str(config.seed)),
        ("trained here in", units.seconds(record.wall_s)),
    )
