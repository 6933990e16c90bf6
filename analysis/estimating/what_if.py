"""Estimates over a grid of batch, pattern and density, for a page on which one tries them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.estimating.pricing import Setting
    from analysis.estimating.subject import Subject
    from hwsim import Device, Estimate

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
PATTERNS = ("unstructured", "fan_in", "block:16", "2:4")
# A batch of the grid is so many times the asked one.
BATCHES = (0.25, 1, 4)


@dataclass(frozen=True)
class Cell:
    """A training step on one device, in seconds; what limits it, and whether prices are checked."""

    seconds: float
    low: float
    high: float
    bound: str
    verified: bool

    @classmethod
    def of(cls, found: Estimate) -> Cell:
        """What a page needs of an estimate."""
        return cls(found.seconds, found.low_s, found.high_s, found.bound, found.verified)


@dataclass(frozen=True)
class Grid:
    """What was priced.

    Attributes:
        name: of the model.
        devices: their names; every list of cells is in their order.
        unit: what a batch counts: samples or sequences.
        dense: batch → cells of the dense step.
        sparse: (batch, pattern, density asked) → cells of the step under such masks.
        densities: (pattern, density asked) → that of the masks, which a pattern may fix.
    """

    name: str
    devices: tuple[str, ...]
    unit: str
    dense: Mapping[int, tuple[Cell, ...]]
    sparse: Mapping[tuple[int, str, float], tuple[Cell, ...]]
    densities: Mapping[tuple[str, float], float]

    @property
    def batches(self) -> tuple[int, ...]:
        """In the order in which they were given."""
        return tuple(self.dense)

    @property
    def patterns(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(dict.fromkeys(pattern for pattern, _ in self.densities))

    def of_pattern(self, pattern: str) -> tuple[float, ...]:
        """The densities that were priced of a pattern."""
        return tuple(density for one, density in self.densities if one == pattern)


def batches(asked: int) -> tuple[int, ...]:
    """
    >>> batches(8), batches(1)
    ((2, 8, 32), (1, 4))
    """
    return tuple(dict.fromkeys(max(1, int(asked * factor)) for factor in BATCHES))


def grid(
    subjects: Mapping[int, Subject], devices: Sequence[Device], setting: Setting, *,
    patterns: Sequence[str] = PATTERNS, densities: Sequence[float] = DENSITIES,
    unit: str = "samples", done: Callable[[int, str], None] = lambda number, name: None,
) -> Grid:  # fmt: skip
    """Prices the grid; masks are drawn once for all batches and devices.

    Args:
        subjects: batch → the model's dense step with it; all of one model.
        setting: distribution, seed and algorithm; its pattern is not looked at.
        unit: what a batch counts.
        done: told how many steps are priced, and the last one's name.

    Raises:
        InputError: a pattern does not fit a layer.
    """
    from analysis.estimating.pricing import masks_of, price

    dense = {
        batch: tuple(Cell.of(device.estimate(one.step)) for device in devices)
        for batch, one in subjects.items()
    }
    any_one = next(iter(subjects.values()))
    sparse, actual = {}, {}
    number = 0
    for pattern in patterns:
        own = replace(setting, pattern=pattern)
        for density in _possible(pattern, densities):
            masks = masks_of(any_one, devices, density, own)
            active = sum(mask.nnz for mask in masks.values())
            known = active / max(1, sum(mask.size for mask in masks.values()))
            actual[pattern, density] = known
            for batch, one in subjects.items():
                priced, _ = price(one, devices, density, own, masks=masks)
                sparse[batch, pattern, density] = tuple(Cell.of(b.total.sparse) for b in priced)
            number += 1
            done(number, f"{pattern} at {density:g}")
    names = tuple(device.name for device in devices)
    return Grid(any_one.name, names, unit, dense, sparse, actual)


def _possible(pattern: str, asked: Sequence[float]) -> Sequence[float]:
    """The densities that a pattern can have: of n in m that one, of others all that are asked."""
    from sparse_train.patterns import projection

    only = projection(pattern).only_density
    return asked if only is None else (only,)
