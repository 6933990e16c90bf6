"""When a run updates its masks, and whether that is often enough for what was asked."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from hwsim.errors import InputError
from sparse_train.registries import ALGORITHMS
from sparse_train.schedules import last_update_step

if TYPE_CHECKING:
    from sparse_train.algorithms import Algorithm
    from sparse_train.runs.config import TrainConfig

# Updates that a short run has at least, where the interval is left to it.
_LEAST_UPDATES = 10


def interval(config: TrainConfig) -> int:
    """The algorithm's own interval, shorter where the run has no room for enough updates of it."""
    rule = _rule(config)
    own = ALGORITHMS.get(config.algorithm).update_interval
    if own <= 1 or rule is None:
        return own
    least = max(_LEAST_UPDATES, rule.least_updates(config.density))
    return max(1, min(own, (_end(config) - 1) // least))


def check(config: TrainConfig) -> None:
    """Raises an InputError if no update would happen, or too few for the density asked for."""
    rule = _rule(config)
    if rule is None or rule.update_interval == 0 or config.steps == 1:
        return
    every, end = config.interval or 0, _end(config)
    happen = last_update_step(every, end) // every if every else 0
    if happen == 0 and rule.update_interval > 1:
        raise InputError(
            f"update_interval: value is {every}; masks change before step {end} of {config.steps}, "
            f"so {config.algorithm} would never change one; allowed is 1 to {end - 1}, or "
            "algorithm 'static'"
        )
    needed = rule.least_updates(config.density)
    if needed > 1 and happen < needed:
        raise InputError(
            f"density: value is {config.density:g}; {config.algorithm} needs {needed} updates for "
            f"it, and has {happen} before step {end}; allowed is an update_interval of at most "
            f"{(end - 1) // needed}, more steps, or a larger share pruned at each"
        )


def _rule(config: TrainConfig) -> Algorithm | None:
    """The algorithm; None if its options are wrong, which is for those who build it to say."""
    kind = ALGORITHMS.get(config.algorithm)
    names = {field.name for field in dataclasses.fields(kind)}
    if not set(config.algorithm_options) <= names:
        return None
    try:
        return kind(**config.algorithm_options)
    except (InputError, TypeError):
        return None


def _end(config: TrainConfig) -> int:
    if config.end_step is not None:
        return max(1, config.end_step)
    return max(1, math.floor(0.75 * config.steps))
