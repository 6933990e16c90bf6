"""Transposable N:M: legal along rows and along columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, always
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern
from hwsim.patterns.n_m import NM, at_most


@dataclass(frozen=True)
class TransposableNM(Pattern):
    """At most n active in each m consecutive inputs and in each m consecutive outputs.

    The weight and its transpose are then both N:M, so that forward and grad_input can both use a
    sparse kernel. Packed as N:M along the inputs; the transpose packs as N:M too.

    Source: Hubara et al. 2021, section 3.
    """

    name: ClassVar[str] = "transposable_n_m"
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        at_least(self.name, "n", self.n, 1)
        at_least(self.name, "m", self.m, 1)
        if self.n > self.m:
            raise InputError(f"pattern {self.name}: n is {self.n}; allowed is at most m = {self.m}")

    def holds(self, mask: Mask) -> bool:
        return NM(self.n, self.m, 1).holds(mask) and NM(self.n, self.m, 0).holds(mask)

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        return always(self.m, 1, self.n), always(self.m, 1, self.n)

    def implies(self, other: Pattern) -> bool:
        if isinstance(other, (NM, TransposableNM)):
            return at_most(self.n, self.m, other.n, other.m)
        return other.name in ("unstructured", "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        return NM(self.n, self.m).unpack(packed)

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        return NM(self.n, self.m)._pack(mask, values)


PATTERN = TransposableNM
