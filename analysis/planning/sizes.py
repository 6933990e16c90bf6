"""Sizes that a plan chooses from: vision transformers of a law, or widths of the user's runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.estimating.subject import Subject, of, of_task
from analysis.planning.law import Point
from analysis.planning.prices import Size, SizedModel
from hwsim import InputError
from sparse_train.weightless import weightless

if TYPE_CHECKING:
    from sparse_train.record import TrainingRecord
    from sparse_train.runs.config import TrainConfig

VIT_WIDTHS = (128, 192, 256, 384, 512, 768)
SHARES = (0.25, 0.375, 0.5, 0.75, 1.0)
_HEAD = 64  # channels of an attention head, as in all sizes of Dosovitskiy et al. (2021)


def vits(widths: Sequence[int], batch_size: int, dtype: str | None = None) -> list[SizedModel]:
    """ViT/16 of twelve layers at several widths on images of 224 pixels.

    Raises:
        InputError: a width that is not a multiple of 64.
    """
    import torch

    from sparse_train.models.vit import Vit, VitConfig

    made = []
    for width in widths:
        if width < _HEAD or width % _HEAD:
            raise InputError(f"width: value is {width}; allowed is a multiple of {_HEAD}")
        config = VitConfig(12, width, width // _HEAD, 4 * width)
        with weightless():
            model = Vit(config)
            images = torch.empty(batch_size, 3, config.image, config.image)
        name = f"ViT {width}"
        subject = of(name, model, images, dtype, "encoder.*")
        made.append(_sized(name, subject, batch_size))
    return made


def of_runs(config: TrainConfig, shares: Sequence[float]) -> list[SizedModel]:
    """The model of a run and narrower ones, with steps on the run's own data.

    Raises:
        InputError: a model without a width.
    """
    from sparse_train.tasks import make_task

    task = make_task(config.task, config.task_options).prepare()
    own = (config.model, config.preset, dict(config.model_options))
    if not task.widths(*own):
        raise InputError(f"plan: model {config.model!r} of task {config.task} has no width")
    made: dict[float, SizedModel] = {}
    for share in sorted(shares):
        options = dict(own[2]) if share == 1 else task.narrowed(*own, share)
        subject = of_task(dataclasses.replace(config, model_options=options))
        label = f"width {options['width']}" if "width" in options else f"width ×{share:g}"
        one = _sized(label, subject, config.batch_size)
        made[one.size.weights] = one
    return list(made.values())


@dataclass(frozen=True)
class LawRuns:
    """What complete runs say of the law.

    Attributes:
        points: of each run.
        config: settings of the largest dense one.
        noise: mean share by which the losses of runs that differ by the seed alone are off their
            expected one; None where no setting was run twice. No law can be nearer to single runs.
    """

    points: tuple[Point, ...]
    config: TrainConfig
    noise: float | None


def points(folders: Sequence[Path]) -> LawRuns:
    """What complete runs below some folders say of the law.

    Tuning runs are left out: a folder called "tune" is not entered. Runs must share task and data.

    Raises:
        InputError: none there, or of several tasks.
    """
    from sparse_train.record import TrainingRecord
    from sparse_train.runs import run_folder

    found: list[tuple[Point, TrainConfig]] = []
    tasks: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob(run_folder.CONFIG)):
            if "tune" in path.relative_to(folder).parts:
                continue
            record = TrainingRecord.load(path.parent)
            if not record.complete:
                continue
            tasks.setdefault(str(record.task.get("digest")), path.parent)
            found.append((_point(record), record.config))
    if not found:
        raise InputError(f"--runs: no complete run below {', '.join(map(str, folders))}")
    if len(tasks) > 1:
        raise InputError(
            f"--runs: {' and '.join(map(str, list(tasks.values())[:2]))} are runs on different "
            "data; allowed are runs of one task"
        )
    dense = [(p, c) for p, c in found if c.algorithm == "dense"]
    if not dense:
        raise InputError("--runs: no dense run among them; the law needs sparsity 0 too")
    _, config = max(dense, key=lambda one: one[0].nonzero)
    return LawRuns(tuple(point for point, _ in found), config, _noise(found))


def _noise(found: Sequence[tuple[Point, TrainConfig]]) -> float | None:
    """Mean |loss / expected loss − 1|; a mean of n runs is nearer to them by √(1 − 1/n)."""
    alike: dict[str, list[float]] = {}
    for point, config in found:
        alike.setdefault(repr(dataclasses.replace(config, seed=0)), []).append(point.loss)
    groups = [np.array(losses) for losses in alike.values() if len(losses) > 1]
    if not groups:
        return None
    off = [np.abs(one / one.mean() - 1) / math.sqrt(1 - 1 / len(one)) for one in groups]
    return float(np.concatenate(off).mean())


def _point(record: TrainingRecord) -> Point:
    weights = _masked_weights(record)
    density = float(record.figures.get("density", 1.0))
    loss = record.evaluations["loss"].to_list()[-1]
    return Point(
        weights * density, 1 - density, float(record.steps * record.config.batch_size),
        float(loss), weights * record.mean_density,
    )  # fmt: skip


def _masked_weights(record: TrainingRecord) -> float:
    """Of the layers that masks act on; of a dense run, of those they would act on."""
    if len(record.densities):
        first = record.densities.filter(record.densities["version"] == 0)
        return float(first["size"].sum())
    from sparse_train.masking.layers import select_layers
    from sparse_train.runs.run import private_randomness
    from sparse_train.tasks import make_task

    config = record.config
    task = make_task(config.task, config.task_options).prepare()
    with private_randomness(config.seed):
        model = task.build_model(config.model, config.preset, config.model_options)
    chosen = select_layers(model, config.layers, None).layers
    return float(sum(layer.parameter.numel() for layer in chosen))


def _sized(name: str, subject: Subject, batch_size: int) -> SizedModel:
    weights = sum(math.prod(shape) for shape in subject.shapes.values())
    return SizedModel(Size(name, float(weights), float(batch_size)), subject)
