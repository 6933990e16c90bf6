"""N:M: at most n active in every m consecutive weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, always, of_each, sums_kept
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern, index_dtype


def at_most(n: int, m: int, of_n: int, of_m: int) -> bool:
    """Whether n in every m is never more than `of_n` in every `of_m`, wherever both are aligned.

    >>> at_most(2, 4, 4, 8), at_most(2, 8, 2, 4), at_most(2, 4, 1, 2)
    (True, True, False)
    """
    if of_m % m == 0:
        return n * (of_m // m) <= of_n
    return m % of_m == 0 and min(n, of_m) <= of_n


@dataclass(frozen=True)
class NM(Pattern):
    """At most n active in each group of m consecutive inputs (axis 1) or outputs (axis 0).

    Where m does not divide the size, the last group is shorter and may hold n all the same: it is
    padded with zeros when packed. Packed as n values per group and their places in the group.

    Source: Zhou et al. 2021, section 3 (n of m along the inputs, as sparse tensor cores want it).
    """

    name: ClassVar[str] = "n_m"
    n: int = 2
    m: int = 4
    axis: int = 1

    def __post_init__(self) -> None:
        at_least(self.name, "n", self.n, 1)
        at_least(self.name, "m", self.m, 1)
        if self.n > self.m:
            raise InputError(f"pattern n_m: n is {self.n}; allowed is at most m = {self.m}")
        if self.axis not in (0, 1):
            raise InputError(f"pattern n_m: axis is {self.axis!r}; allowed is 0 or 1")

    def holds(self, mask: Mask) -> bool:
        from hwsim.patterns.passes import n_m

        check = n_m.along_rows if self.axis == 1 else n_m.along_columns
        return check(mask.array.view(np.uint8), self.n, self.m)

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        along, across = always(self.m, 1, self.n), of_each(1, 1, 1, self.n / self.m)
        return (along, across) if self.axis else (across, along)

    def line_counts(
        self, axis: int, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        # Each of the lines across has n in every m, so that these add up to the same everywhere.
        if axis != self.axis:
            return None
        return sums_kept(shape[axis], self.m, shape[1 - axis], self.n, rng)

    def implies(self, other: Pattern) -> bool:
        if isinstance(other, NM):
            return other.axis == self.axis and at_most(self.n, self.m, other.n, other.m)
        return other.name == "unstructured" or (self.axis == 1 and other.name == "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        lines, groups, _ = packed.values.shape
        dense = np.zeros((lines, groups, self.m), dtype=packed.values.dtype)
        np.put_along_axis(dense, packed.indices["places"].astype(np.intp), packed.values, axis=2)
        flat = dense.reshape(lines, -1)[:, : packed.shape[self.axis]]
        return np.ascontiguousarray(flat if self.axis else flat.T)

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        active, grouped = self._groups(mask.array), self._groups(values)
        # A stable sort on "inactive" puts the active places first, in order, then free ones.
        places = np.argsort(~active, axis=2, kind="stable")[:, :, : self.n]
        chosen = np.take_along_axis(grouped, places, axis=2)
        return Packed(chosen, {"places": places.astype(index_dtype(self.m - 1))}, mask.shape)

    def _groups(self, array: np.ndarray) -> np.ndarray:
        """(lines, groups, m), padded with zeros."""
        lines = array if self.axis else array.T
        padded = np.pad(lines, ((0, 0), (0, -lines.shape[1] % self.m)))
        return padded.reshape(lines.shape[0], -1, self.m)


PATTERN = NM
