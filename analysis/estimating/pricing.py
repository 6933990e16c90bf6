"""A training step under random masks of a density, priced device by device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.estimating.breakdown import Breakdown, PricedPart
    from analysis.estimating.subject import Subject
    from hwsim import Device, Mask, Workload


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


def told(what: Subject, setting: Setting) -> str:
    """What is priced, in a sentence that stands with every table and figure of it."""
    masks = f"masks of seed {setting.seed}"
    return f"{what.priced}; {masks}." if what.priced else f"A step of its own batch; {masks}."


def is_giant(what: Subject) -> bool:
    """Whether masks of all layers would fit no laptop."""
    from analysis.estimating.subject import too_many

    return too_many(what.shapes)


def _known_by_statistics(what: Subject, devices: Sequence[Device]) -> bool:
    """Of giants, where no device asks for positions."""
    from hwsim.devices.gpu import Gpu

    return bool(devices) and is_giant(what) and all(isinstance(d, Gpu) for d in devices)


def masks_of(
    what: Subject, devices: Sequence[Device], density: float, setting: Setting, *,
    by_statistics: bool = False,
) -> dict[str, Mask]:  # fmt: skip
    """Random masks of a density for every layer that takes one: the same for the same setting.

    Args:
        devices: that will price them; giants on those that ask for no positions have their masks
            known by statistics.
        by_statistics: so in any case.
    """
    from analysis.estimating.subject import random_masks, statistical_masks

    if what.masks or not what.shapes:
        return dict(what.masks)
    if by_statistics or _known_by_statistics(what, devices):
        how = (density, setting.pattern, setting.distribution)
        return statistical_masks(what.shapes, *how, what.step.layers)
    how = (density, setting.pattern, setting.distribution, setting.seed)
    return random_masks(what.shapes, *how, what.step.layers)


def price(
    what: Subject,
    devices: Sequence[Device],
    density: float,
    setting: Setting,
    by: str = "phase",
    done: Callable[[int, str], None] = lambda number, name: None,
    *,
    by_statistics: bool = False,
    masks: Mapping[str, Mask] | None = None,
) -> tuple[list[Breakdown], Workload]:
    """The step under random masks of one density on each device, and that step.

    Args:
        by_statistics: masks are not drawn but known by what random ones have in common.
        done: told how many devices are priced, and the last one's name.
        masks: made before, by `masks_of`.
    """
    from analysis.estimating.breakdown import breakdown
    from sparse_train.algorithms import ALGORITHMS

    if masks is None:
        masks = masks_of(what, devices, density, setting, by_statistics=by_statistics)
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


def narrower_dense(
    what: Subject, devices: Sequence[Device], sparse: Workload
) -> dict[str, PricedPart]:
    """Device → the narrower dense model of the same arithmetic, against the dense one."""
    from analysis.estimating.breakdown import PricedPart

    if what.narrowed is None:
        return {}
    label, step = what.narrowed(sparse.flops)
    return {d.name: PricedPart(label, d.estimate(what.step), d.estimate(step)) for d in devices}
