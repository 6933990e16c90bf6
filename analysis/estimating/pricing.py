"""A training step under random masks of a density, priced device by device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.estimating.breakdown import Breakdown
    from analysis.estimating.subject import Subject
    from hwsim import Device, Workload


@dataclass(frozen=True)
class Setting:
    """How masks are made, and how often they change."""

    pattern: str
    distribution: str
    seed: int
    algorithm: str
    update_interval: int

    def described(self, by: str) -> dict[str, Any]:
        """For JSON, with what the answer is grouped by."""
        return {**dataclasses.asdict(self), "by": by}


def is_giant(what: Subject) -> bool:
    """Whether masks of all layers would fit no laptop."""
    from analysis.estimating.subject import too_many

    return too_many(what.shapes)


def _known_by_statistics(what: Subject, devices: Sequence[Device]) -> bool:
    """Of giants, where no device asks for positions."""
    from hwsim.devices.gpu import Gpu

    return bool(devices) and is_giant(what) and all(isinstance(d, Gpu) for d in devices)


def price(
    what: Subject,
    devices: Sequence[Device],
    density: float,
    setting: Setting,
    by: str = "phase",
    done: Callable[[int, str], None] = lambda number, name: None,
    *,
    by_statistics: bool = False,
) -> tuple[list[Breakdown], Workload]:
    """The step under random masks of one density on each device, and that step.

    Args:
        by_statistics: masks are not drawn but known by what random ones have in common.
        done: told how many devices are priced, and the last one's name.
    """
    from analysis.estimating.breakdown import breakdown
    from analysis.estimating.subject import random_masks, statistical_masks
    from sparse_train.algorithms import ALGORITHMS

    how = (density, setting.pattern, setting.distribution, setting.seed)
    drawn = not by_statistics and not _known_by_statistics(what, devices)
    masks = random_masks(what.shapes, *how, what.step.layers) if what.shapes and drawn else {}
    if what.shapes and not drawn:
        masks = statistical_masks(what.shapes, *how[:-1], what.step.layers)
    sparse = what.step.with_masks(masks)
    growth, grown = 0.0, None
    if setting.update_interval:
        dense_gradient = ALGORITHMS.get(setting.algorithm).gradient != "never"
        growth = 1.0 / setting.update_interval
        grown = sparse.growth_step(dense_gradient=dense_gradient)
    found = []
    for number, device in enumerate(devices, 1):
        found.append(breakdown(device, what.step, sparse, by, growth=growth, grown=grown))
        done(number, device.name)
    return found, sparse
