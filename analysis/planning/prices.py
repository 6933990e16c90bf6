"""What a step of each size costs at each density, and a whole training on average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.estimating.subject import Subject, random_masks
from hwsim import Device, InputError

GRADUAL, CONSTANT = "gradual", "constant"
SCHEDULES = (GRADUAL, CONSTANT)
# Of gradual magnitude pruning: Frantar et al. (2024), section 3.
PRUNING = (0.25, 0.75)
_GRID = 33


def densities_over(schedule: str, density: float) -> tuple[np.ndarray, np.ndarray]:
    """(densities, shares of the steps) that a training to `density` goes through.

    Gradual: dense for a quarter, then cubic pruning, then a quarter at `density`.

    Source: Frantar et al. (2024), section 3; Zhu & Gupta (2017), equation 1.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"schedule: value is {schedule!r}; allowed: {', '.join(SCHEDULES)}")
    if schedule == CONSTANT or density == 1:
        return np.array([density]), np.array([1.0])
    begin, end = PRUNING
    middle = (np.arange(_GRID) + 0.5) / _GRID
    moving = density + (1 - density) * (1 - middle) ** 3
    shares = np.full(_GRID, (end - begin) / _GRID)
    return np.array([1.0, *moving, density]), np.array([begin, *shares, 1 - end])


def average_density(schedule: str, density: float) -> float:
    """Over the steps of a training.

    >>> average_density("constant", 0.1)
    0.1
    """
    values, shares = densities_over(schedule, density)
    return float(values @ shares)


@dataclass(frozen=True)
class Size:
    """What a law is asked of one model.

    Attributes:
        name: for people.
        weights: that masks can act on, as the law counts them.
        examples: that a step trains on, as the law counts them.
    """

    name: str
    weights: float
    examples: float


@dataclass(frozen=True)
class SizedModel:
    """A model of one size with its dense training step and the weights that masks can act on."""

    size: Size
    subject: Subject


@dataclass(frozen=True)
class StepCosts:
    """Seconds of a training step of one model on one device, by density."""

    subject: Subject
    device: Device
    densities: tuple[float, ...]
    pattern: str = "unstructured"
    distribution: str = "uniform"

    @cached_property
    def _seconds(self) -> np.ndarray:
        """(densities,), rising with density; random masks."""
        found = []
        for density in self._points:
            step = self.subject.step
            if density < 1:
                how = (density, self.pattern, self.distribution, 0)
                step = step.with_masks(random_masks(self.subject.shapes, *how, step.layers))
            found.append(self.device.estimate(step).seconds)
        return np.array(found)

    @property
    def _points(self) -> list[float]:
        return sorted({*self.densities, 1.0})

    def at(self, density: float | np.ndarray) -> np.ndarray:
        """Between the densities priced, along straight lines; none is priced below the least."""
        return np.asarray(np.interp(density, self._points, self._seconds))

    def training(self, schedule: str, density: float) -> float:
        """Mean seconds of a step of a whole training that ends at `density`."""
        values, shares = densities_over(schedule, density)
        return float(self.at(values) @ shares)
