"""The narrower dense model whose training step costs as many FLOPs as a sparse one's.

Every sparse claim has to face it: the same FLOPs, spent on fewer neurons. A model that can be made
narrower says how many widths it has; the FLOPs of a step are a polynomial of second degree in the
width, but for what rounding adds, so that four steps observed suffice to find the nearest width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.masking.layers import select_layers
from sparse_train.workload import workload

if TYPE_CHECKING:
    from hwsim import Workload
    from sparse_train.runs.config import TrainConfig
    from sparse_train.tasks import Prepared

OBSERVATIONS = 4


def nearest_width(
    flops: Callable[[int], float], widths: int, target: float, full: float | None = None
) -> int:
    """The width, of 1 to `widths`, whose step costs nearest to `target` FLOPs.

    Args:
        flops: of a step at a width; asked for at most OBSERVATIONS widths, `full` counted.
        widths: the model's own width, in the units that it can be narrowed by.
        target: FLOPs of a step.
        full: FLOPs at the model's own width, where they are known.

    Raises:
        InputError: a number of widths below 1.

    >>> nearest_width(lambda w: 6 * w * w + 10 * w, 64, 6 * 20 * 20 + 200)
    20
    """
    check_integer("widths", widths, 1)
    found = {widths: flops(widths) if full is None else full}
    while len(found) < OBSERVATIONS:
        guess = min(max(_guess(found, target), 1), widths)
        if guess in found:  # The polynomial is met there, or near: its neighbour is the other one.
            guess += 1 if found[guess] < target else -1
            if guess in found or not 1 <= guess <= widths:
                break
        found[guess] = flops(guess)
    return min(found, key=lambda w: (abs(found[w] - target), w))


def narrower(
    config: TrainConfig, task: Prepared, density: float, share: float = 1.0
) -> dict[str, Any]:
    """Model options of the dense model nearest in FLOPs to `config`'s model at `density`.

    Of a sparse step, what no mask can touch stays dense; what can costs `density` of itself.

    Args:
        config: a dense run's; its model, preset, options, layers and batch size count.
        task: of the config, prepared.
        density: of the masked weights.
        share: of that sparse step's FLOPs, for models narrower or wider still.

    Raises:
        InputError: the task's models have no width.
    """
    model, step = _step(config, task, dict(config.model_options))
    masked = {layer.name for layer in select_layers(model, config.layers, None).layers}
    target = share * sparse_flops(step, masked, density)
    return narrower_at(config, task, target, step.dense_flops)


def sparse_flops(step: Workload, masked: Container[str], density: float) -> float:
    """FLOPs of a dense step if its products of the masked layers cost `density` of themselves."""
    reached = sum(op.dense_flops for op in step if op.name.partition("[")[0] in masked)
    return step.dense_flops - (1 - density) * reached


def narrower_at(
    config: TrainConfig, task: Prepared, target: float, full: float | None = None
) -> dict[str, Any]:
    """Model options of the dense model whose step is nearest to `target` FLOPs.

    Raises:
        InputError: the task's models have no width.
    """
    own = (config.model, config.preset, dict(config.model_options))
    widths = task.widths(*own)
    if not widths:
        raise InputError(
            f"narrower: model {config.model!r} of task {config.task} has no width to "
            "take; leave the narrower dense model out"
        )

    def options(width: int) -> Mapping[str, Any]:
        return task.narrowed(*own, width / widths) if width < widths else own[2]

    def flops(width: int) -> float:
        return _step(config, task, options(width))[1].dense_flops

    return dict(options(nearest_width(flops, widths, target, full)))


def _guess(found: Mapping[int, float], target: float) -> int:
    """The width at which the polynomial through what was observed is nearest to the target.

    One point: FLOPs as width²; two: a·width² + b·width; three: with a constant.
    """
    points = sorted(found.items())
    if len(points) == 1:
        ((w, f),) = points
        return round(w * math.sqrt(max(target, 0.0) / f))
    (w1, f1), (w2, f2) = points[0], points[-1]
    if len(points) == 2:
        a = (f2 / w2 - f1 / w1) / (w2 - w1)
        b = f1 / w1 - a * w1
        return _root(a, b, -target)
    w3, f3 = points[1]
    slope = (f2 - f1) / (w2 - w1)
    a = ((f3 - f1) / (w3 - w1) - slope) / (w3 - w2)
    b = slope - a * (w1 + w2)
    return _root(a, b, f1 - a * w1 * w1 - b * w1 - target)


def _root(a: float, b: float, c: float) -> int:
    """The whole number nearest to the larger root of a·w² + b·w + c."""
    if abs(a) < 1e-12 * abs(b):
        return round(-c / b)
    inside = max(b * b - 4 * a * c, 0.0)
    return round((-b + math.sqrt(inside)) / (2 * a))


def _step(config: TrainConfig, task: Prepared, options: Mapping[str, Any]) -> tuple[Any, Workload]:
    """The model with these options and its dense training step."""
    from sparse_train.runs.run import private_randomness

    with private_randomness(config.seed):
        model = task.build_model(config.model, config.preset, options)
    batch = task.batch(1, config.batch_size, config.seed)
    return model, workload(task.priced_model(model), batch, optimizer=config.priced_optimizer)
