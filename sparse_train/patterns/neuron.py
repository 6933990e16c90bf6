"""Neurons or channels: whole rows or whole columns are active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hwsim import patterns as definitions
from sparse_train.patterns._tiles import Tiled


@dataclass(frozen=True)
class Neuron(Tiled):
    """A unit is an output (axis 0, a row) or an input (axis 1, a column)."""

    name: ClassVar[str] = "neuron"
    axis: int = 0

    def __post_init__(self) -> None:
        definitions.PATTERNS.get(self.name)(self.axis)

    @property
    def on_device(self) -> bool:
        return True

    def tile(self, shape: tuple[int, int]) -> tuple[int, int]:
        return (1, shape[1]) if self.axis == 0 else (shape[0], 1)


PATTERN = Neuron
