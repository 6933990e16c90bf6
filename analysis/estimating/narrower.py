"""The narrower dense model whose training step costs what a sparse step costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim import InputError, Workload

if TYPE_CHECKING:
    from sparse_train.runs.config import TrainConfig
    from sparse_train.tasks import Prepared

# Of the full width; finer than any model's widths are.
_STEPS = 128


def narrower(config: TrainConfig, task: Prepared, density: float) -> dict[str, Any]:
    """Model options of the dense model nearest in FLOPs to `config`'s model at `density`.

    Of a sparse step, what no mask can touch stays dense; what can costs `density` of itself.

    Args:
        config: a dense run's; its model, preset, options, layers and batch size count.
        task: of the config, prepared.
        density: of the masked weights.

    Raises:
        InputError: the task's models have no width.
    """
    step, masked = _step(config, task, dict(config.model_options))
    return narrower_at(config, task, step.dense_flops - (1 - density) * masked)


def narrower_at(config: TrainConfig, task: Prepared, target: float) -> dict[str, Any]:
    """Model options of the dense model whose step is nearest to `target` FLOPs.

    Raises:
        InputError: the task's models have no width.
    """
    full = dict(config.model_options)
    low, high = 1, _STEPS  # The narrowest that costs at least the target lies between them.
    tried: dict[int, tuple[float, dict[str, Any]]] = {}

    def cost(place: int) -> float:
        if place not in tried:
            options = task.narrowed(config.model, config.preset, full, place / _STEPS)
            if options is None:
                raise InputError(
                    f"narrower: model {config.model!r} of task {config.task} has no width to "
                    "take; leave the narrower dense model out"
                )
            tried[place] = (_step(config, task, options)[0].dense_flops, options)
        return tried[place][0]

    while low < high:
        middle = (low + high) // 2
        if cost(middle) >= target:
            high = middle
        else:
            low = middle + 1
    cost(low)
    cost(max(low - 1, 1))
    return min(tried.values(), key=lambda one: abs(one[0] - target))[1]


def _step(config: TrainConfig, task: Prepared, options: dict[str, Any]) -> tuple[Workload, float]:
    """One dense training step of the model, and the FLOPs of it that masks reach."""
    from sparse_train.masking.layers import select_layers
    from sparse_train.runs.run import private_randomness
    from sparse_train.workload import workload

    with private_randomness(config.seed):
        model = task.build_model(config.model, config.preset, options)
    batch = task.batch(1, config.batch_size, config.seed)
    step = workload(task.priced_model(model), batch, optimizer=config.optimizer)
    masked = {layer.name for layer in select_layers(model, config.layers, None).layers}
    flops = sum(op.dense_flops for op in step if op.name.partition("[")[0] in masked)
    return step, float(flops)
