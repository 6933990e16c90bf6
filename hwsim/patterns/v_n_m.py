"""V:N:M: two of four columns, and the four are common to V rows."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, always, line_counts, of_each, sums_kept
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern, index_dtype
from hwsim.patterns.n_m import NM, at_most
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS, N

_PLACES = 1000  # of the fifth best sum


@dataclass(frozen=True)
class VNM(Pattern):
    """In each block of v rows × m columns at most 4 columns are used, and each row uses at most n.

    n is 2: the four columns of a block are then a 2:4 weight. Where v or m does not divide the
    shape, the last blocks are smaller; one of fewer than four columns may use them all, and a row
    of it n all the same. m = 4 is 2:4.

    Packed as n values per row and block, their places among the block's four columns, and these
    columns, counted within the block. Short blocks are padded with zeros.

    Source: Castro et al. 2023 (VENOM), the V:N:M format.
    """

    name: ClassVar[str] = "v_n_m"
    v: int = 64
    n: int = 2
    m: int = 8

    def __post_init__(self) -> None:
        at_least(self.name, "v", self.v, 1)
        at_least(self.name, "m", self.m, COLUMNS)
        if self.n != N or isinstance(self.n, bool):
            raise InputError(
                f"pattern {self.name}: n is {self.n!r}; allowed is {N}, of {COLUMNS} columns"
            )

    def holds(self, mask: Mask) -> bool:
        from hwsim.patterns.passes import v_n_m

        return v_n_m.holds(mask.array.view(np.uint8), self.v, self.m)

    def columns(self, used: np.ndarray) -> np.ndarray:
        """The columns of each block, those in use first, then others; each within its block.

        Args:
            used: which columns a block of rows uses, (blocks of rows, n_in).

        Returns:
            (blocks of rows, blocks of columns, 4), in the order of the matrix where all are used.
        """
        padded = np.pad(used, ((0, 0), (0, -used.shape[1] % self.m)))
        grouped = padded.reshape(len(used), -1, self.m)
        return np.argsort(~grouped, axis=2, kind="stable")[:, :, :COLUMNS]

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        # A block's columns: four of m are used, and each row uses two of these at random.
        used = COLUMNS / self.m
        counts = used * line_counts(of_each(1, 1, 1, self.n / COLUMNS), self.v, self.v)
        counts[0] += 1.0 - used
        return always(self.m, 1, self.n), Cells(self.v, 1, tuple(counts.tolist()))

    def line_counts(
        self, axis: int, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        if axis == 0:
            return None
        n_out, n_in = shape
        found = np.zeros((-(-n_in // self.m), self.m), np.int64)
        for first in range(0, n_out, self.v):
            rows = min(self.v, n_out - first)
            of_block = sums_kept(len(found) * COLUMNS, COLUMNS, rows, self.n, rng, self._uneven)
            # Which columns of a block are used is drawn anew for each block of rows.
            used = np.argsort(rng.random(found.shape), axis=1)[:, :COLUMNS]
            drawn = of_block.reshape(-1, COLUMNS)
            np.put_along_axis(found, used, np.take_along_axis(found, used, 1) + drawn, 1)
        return found.reshape(-1)[:n_in]

    def drawn(
        self, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        blocks = -(-shape[1] // self.m)
        found = np.zeros((shape[0], blocks, self.m), bool)
        for first in range(0, shape[0], self.v):
            rows = found[first : first + self.v]
            used = np.argsort(rng.random((blocks, self.m)), axis=1)[:, :COLUMNS]
            chosen = np.argsort(rng.random((len(rows), blocks, COLUMNS)), axis=2)[:, :, : self.n]
            np.put_along_axis(rows, np.take_along_axis(used[None], chosen, 2), True, axis=2)
        return np.ascontiguousarray(found.reshape(shape[0], -1)[:, : shape[1]])

    @property
    def _uneven(self) -> float:
        """Of the variance of columns' counts within a block, what is left of columns that are the
        best four of m: sums of their scores, which decide the counts, differ less.

        Given the fifth best sum, the four are independent and normal beyond it. Their differences
        explain 0.64 of the counts' variance where scores are uniform: the count of a column goes
        with its own scores, covariance 0.1 a row, and against the other three's, 0.1 / 3 each; a
        score's variance is 1/12, that of being one of the best two of four 1/4.
        """
        if self.m == COLUMNS:
            return 1.0
        below = (np.arange(_PLACES) + 0.5) / _PLACES
        chance = below ** (self.m - COLUMNS - 1) * (1.0 - below) ** COLUMNS
        normal = NormalDist()
        fifth = np.array([normal.inv_cdf(place) for place in below.tolist()])
        hazard = np.array([normal.pdf(place) for place in fifth.tolist()]) / (1.0 - below)
        left = 1.0 + fifth * hazard - hazard**2  # of the variance, beyond the fifth
        return 1.0 - 0.64 * (1.0 - float(chance @ left / chance.sum()))

    def implies(self, other: Pattern) -> bool:
        if isinstance(other, VNM):
            return other.m == self.m and self.v % other.v == 0
        if isinstance(other, NM):
            return other.axis == 1 and at_most(self.n, self.m, other.n, other.m)
        return other.name in ("unstructured", "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        n_out, n_in = packed.shape
        places = packed.indices["places"].astype(np.intp)
        columns = self._of_rows(packed.indices["columns"].astype(np.intp), n_out)
        dense = np.zeros((*places.shape[:2], self.m), dtype=packed.values.dtype)
        np.put_along_axis(dense, np.take_along_axis(columns, places, 2), packed.values, axis=2)
        return np.ascontiguousarray(dense.reshape(n_out, -1)[:, :n_in])

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        n_out = mask.shape[0]
        starts = np.arange(0, n_out, self.v)
        columns = self.columns(np.logical_or.reduceat(mask.array, starts, axis=0))
        of_rows = self._of_rows(columns, n_out)
        active, grouped = (
            np.take_along_axis(self._grouped(array), of_rows, axis=2)
            for array in (mask.array, values)
        )
        # A stable sort on "inactive" puts the active places first, in order, then free ones.
        places = np.argsort(~active, axis=2, kind="stable")[:, :, : self.n]
        indices = {
            "columns": columns.astype(index_dtype(self.m - 1)),
            "places": places.astype(index_dtype(COLUMNS - 1)),
        }
        return Packed(np.take_along_axis(grouped, places, axis=2), indices, mask.shape)

    def _of_rows(self, blocks: np.ndarray, n_out: int) -> np.ndarray:
        """What is said of blocks of rows, for each row."""
        return np.repeat(blocks, self.v, axis=0)[:n_out]

    def _grouped(self, array: np.ndarray) -> np.ndarray:
        """(n_out, blocks of columns, m), padded with zeros."""
        padded = np.pad(array, ((0, 0), (0, -array.shape[1] % self.m)))
        return padded.reshape(array.shape[0], -1, self.m)


PATTERN = VNM
