"""A mask that is known by its statistics alone: how random masks of its pattern and density are."""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.counts import BLOCK
from hwsim.masks.lines import make_sum, neighbours
from hwsim.masks.statistics import (
    Cells,
    largest,
    line_counts,
    quantiles,
    strata,
    sum_of,
    within_n_m,
)
from hwsim.masks.wave_law import LineLaw, WaveLaw
from hwsim.patterns import Pattern, pattern
from hwsim.patterns.n_m import NM

VARIANTS, _STRIDE = 24, 5  # without a common factor


class StatisticalMask(Mask):
    """What devices ask of a mask, in expectation over random masks of a pattern and a density.

    No mask is drawn. Counts of rows and columns are as they are distributed among such masks;
    where a device asks for the fullest of some lines, it is told the mean of that. Where one asks
    for positions, and no expectation is known, an error says so.

    What no expectation of the mask gives (a price is no linear function of its counts) is taken
    over `variants`: ways in which the statistics may fall, of equal weight.

    Args:
        shape: (n_out, n_in).
        density: share of active weights; rounded to what the pattern can have.
        kind: a pattern of `hwsim.patterns`, or its name.
        variant, of: which of how many ways this one is; None for all of them.

    Raises:
        InputError: a shape or density that no mask has, a pattern whose statistics are not known.

    >>> mask = StatisticalMask((256, 1024), 0.1)
    >>> mask.nnz, round(mask.slowest(0, 32)[0] / 8, 1)
    (26214, 122.7)
    """

    __slots__ = (
        "_cells", "_chance", "_distributions", "_example", "_given", "_kind", "_laws", "_of",
        "_shape", "_sigmas", "_variant", "_ways",
    )  # fmt: skip

    def __init__(
        self, shape: tuple[int, int], density: float, kind: str | Pattern = "unstructured",
        *, variant: int | None = None, of: int = VARIANTS,
    ) -> None:  # fmt: skip
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(f"shape: value is {shape}; allowed is (n_out, n_in), both at least 1")
        if not 0.0 <= density <= 1.0:
            raise InputError(f"density: value is {density!r}; allowed is 0 to 1")
        self._kind = pattern(kind)
        cells = self._kind.cells((int(shape[0]), int(shape[1])), density)
        if cells is None:
            raise InputError(
                f"pattern: {self._kind} is not known by its statistics; allowed is a mask itself"
            )
        self._shape = int(shape[0]), int(shape[1])
        self._given, self._variant = density, variant
        self._of = of
        place = (0 if variant is None else variant) * _STRIDE % of
        self._chance = 0.5 if variant is None else (variant + 0.5) / of
        self._sigmas = 0.0 if variant is None else NormalDist().inv_cdf((place + 0.5) / of)
        self._cells: tuple[Cells, Cells] = cells
        self._start()
        self._ways: dict[int, tuple[StatisticalMask, ...]] = {}
        self._distributions: dict[int, np.ndarray] = {}
        self._example: Mask | None = None
        self._laws: dict[tuple, Any] = {}
        along = cells[0]
        share = along.mean / along.size if along.size else along.counts[-1]
        self._nnz = round(share * self._shape[0] * self._shape[1])

    @property
    def kind(self) -> Pattern:
        """The pattern."""
        return self._kind

    @property
    def array(self) -> np.ndarray:
        raise InputError(
            f"mask: {self._shape[0]}×{self._shape[1]} of density {self.density:.3g} is known by "
            "its statistics; what asks for its positions needs the mask itself"
        )

    @property
    def bits(self) -> np.ndarray:
        return self.array

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self._shape

    @property
    def size(self) -> int:
        """n_out · n_in."""
        return self._shape[0] * self._shape[1]

    @property
    def nnz(self) -> int:
        return self._nnz  # type: ignore[return-value]

    @property
    def row_nnz(self) -> np.ndarray:
        """Counts spread as those of random masks are, in one order of many."""
        if self._row_nnz is None:
            self._row_nnz = _short(self._typical(0))
        return _long(self._row_nnz)

    @property
    def col_nnz(self) -> np.ndarray:
        if self._col_nnz is None:
            self._col_nnz = _short(self._typical(1))
        return _long(self._col_nnz)

    @property
    def digest(self) -> str:
        what = f"{self._kind}|{self._shape}|{self._nnz}|{self._variant}|{self._of}"
        return hashlib.blake2b(what.encode(), digest_size=16).hexdigest()

    @property
    def variants(self) -> tuple[StatisticalMask, ...]:
        """Ways in which its statistics may fall, of equal weight; none of a way itself."""
        return self.ways(VARIANTS)

    def ways(self, many: int) -> tuple[StatisticalMask, ...]:
        """So many ways of equal weight in which its statistics may fall; none of a way itself."""
        if self._variant is not None:
            return ()
        if many not in self._ways:
            self._ways[many] = tuple(
                StatisticalMask(self._shape, self._given, self._kind, variant=i, of=many)
                for i in range(many)
            )
            for way in self._ways[many]:
                way._distributions, way._laws = self._distributions, self._laws
        return self._ways[many]

    def share(self, axis: int, number: int, of: int) -> StatisticalMask:
        size = self._shape[axis]
        if not 0 <= number < of <= size:
            raise InputError(f"share: {number} of {of}; allowed is 0 ≤ number < of ≤ {size}")
        mine = (number + 1) * size // of - number * size // of
        shape = (mine, self._shape[1]) if axis == 0 else (self._shape[0], mine)
        return StatisticalMask(shape, self._given, self._kind, variant=self._variant, of=self._of)

    def satisfies(self, pattern: Any) -> bool:
        """Whether masks of its kind are of `pattern`: all of them, or by chance most of them."""
        if pattern not in self._patterns:
            held = pattern == self._kind or self._kind.implies(pattern)
            if not held and isinstance(pattern, NM):
                held = self._chance_of(pattern) > self._chance
            self._patterns[pattern] = bool(held)
        return self._patterns[pattern]

    def _chance_of(self, asked: NM) -> float:
        """That no group of a mask has more active weights than an N:M pattern allows."""
        axis = 1 - asked.axis
        lines, length = self._shape[axis], self._shape[1 - axis]
        cells = self._cells[axis]
        if cells.size > 1 and cells.size % asked.m == 0 and length % cells.size == 0:
            # Of lines whose cells have as many, a full cell seldom comes alone.
            each = np.array(within_n_m(cells.size, asked.n, asked.m))[: len(cells.counts)]
            alike = min(cells.like, lines)
            fits = float(np.array(cells.counts)[: len(each)] @ each**alike)
            return fits ** (lines / (cells.share * alike) * length / cells.size)
        counts = line_counts(cells, min(asked.m, length), length)
        groups = max(lines / cells.share, 1.0) * length / asked.m
        if cells.size == 0:
            groups = lines
        return float(counts[: asked.n + 1].sum() ** groups)

    def slowest(self, axis: int, group: int) -> tuple[float, float]:
        share = self._cells[axis].share
        lines = self._shape[axis]
        each = max(group / share, 1.0)
        groups, left = divmod(lines, group)
        mean, deviation = self._largest(axis, each)
        total = groups * mean
        if left:
            total += self._largest(axis, max(left / share, 1.0))[0]
        clumps = max(share / group, 1.0)
        total += self._sigmas * deviation * (max(groups, 1) * clumps) ** 0.5
        most, spread = self._largest(axis, max(lines / share, 1.0))
        return total, most + self._sigmas * spread

    def _largest(self, axis: int, many: float) -> tuple[float, float]:
        """Mean and deviation of the fullest of so many lines; the same for all variants."""
        asked = ("largest", axis, many)
        if asked not in self._laws:
            self._laws[asked] = largest(self._lines(axis), many)
        return self._laws[asked]

    def lines_used(self, width: int) -> int:
        """Aligned runs of `width` inputs of a row that hold an active weight."""
        rows, columns = self._shape
        runs = -(-rows * columns // width)
        empty = line_counts(self._cells[0], min(width, columns), columns)[0]
        spread = (runs * empty * (1.0 - empty)) ** 0.5
        return round(runs * (1.0 - empty) + self._sigmas * spread)

    def strip(self, axis: int, groups: int, of: int) -> np.ndarray:
        """Some typical rows (axis 0) or columns (1), by their counts: `groups` times `of` of them.

        Drawn from the law of lines, as many of each count as there are; boolean, one line a row.
        """
        lines, length = self._shape[axis], self._shape[1 - axis]
        rng = np.random.default_rng((self._variant or 0, axis, length))
        counts = np.sort((self.row_nnz, self.col_nnz)[axis])
        whole = max(lines // of, 1)
        firsts = (np.arange(min(groups, whole)) + 0.5) * whole / min(groups, whole)
        found: list[np.ndarray] = []
        for first in firsts.astype(int) * of:
            found += neighbours(self._cells[axis], length, counts[first : first + of], rng)
        return np.array(found)

    def example(self) -> Mask:
        """One random mask of its kind, another for each way, for what only positions can tell."""
        if self._example is None:
            rng = np.random.default_rng((self._variant or 0, *self._shape))
            drawn = self._kind.drawn(self._shape, self._given, rng)
            if drawn is None:
                drawn = np.array(neighbours(self._cells[0], self._shape[1], self.row_nnz, rng))
            self._example = Mask(drawn, copy=False)
        return self._example

    def waves(self, axis: int, columns: int, placement: str) -> np.ndarray:
        """What a weight-streaming grid does in each wave: see `hwsim/accelerators/waves.py`.

        Args:
            axis: of the lines that waves are made of: 0 for outputs.
            columns: PE columns that the crossing lines are spread over.
            placement: which crossing lines share one.
        """
        crossing, lines = self._cells[1 - axis], self._shape[axis]
        waves = -(-lines // BLOCK)
        sizes = np.minimum(BLOCK, lines - np.arange(waves) * BLOCK)
        if placement == "balanced":
            return self._dealt(axis, sizes, columns)
        table = np.zeros((waves, 3))
        for rows in set(sizes.tolist()):
            law = self._law(axis, rows, columns, placement)
            mine = sizes == rows
            number = 1 if crossing.size == 0 else int(mine.sum())
            if self._variant is None:
                places = np.full((3, number), 0.5)
            else:
                places = strata(self._variant, self._of, (3, number))
            totals = law.totals(places[0], waves)
            slowest = law.slowest(totals, places[1])
            lines_law = self._line_law(axis, rows)
            if lines_law.exact or self._variant is None:
                used = lines_law.used(totals, places[2])
            else:
                used = self._used(axis)[mine][:number]
            table[mine] = np.stack([slowest, totals, used], 1)
        return table

    def _used(self, axis: int) -> np.ndarray:
        """Of each wave of typical lines, those with any active weight."""
        counts = (self.row_nnz, self.col_nnz)[axis]
        return np.add.reduceat(counts > 0, np.arange(0, counts.size, BLOCK), dtype=np.float64)

    def _line_law(self, axis: int, rows: int) -> LineLaw:
        """How many of a wave's lines have anything to do."""
        asked = ("lines", axis, rows)
        if asked not in self._laws:
            share = min(self._cells[axis].share, rows)
            self._laws[asked] = LineLaw(self._lines(axis), max(rows // share, 1), share)
        return self._laws[asked]

    def _law(self, axis: int, rows: int, columns: int, placement: str) -> WaveLaw:
        """How a wave of so many lines loads the columns."""
        asked = (axis, rows, columns, placement)
        if asked not in self._laws:
            crossing, features = self._cells[1 - axis], self._shape[1 - axis]
            held = -(-features // columns)
            one = line_counts(crossing, rows, self._shape[axis])
            share = min(crossing.share, features)
            # Neighbours that are alike lie in columns side by side, or in the same one.
            alike = share if placement == "interleaved" else 1
            same = 1 if placement == "interleaved" and share < columns else min(share, held)
            if share >= features:
                alike, same = columns, held
            load = sum_of(one, max(held // same, 1))
            total = features * float(np.arange(len(one)) @ one)
            even = self._cells[axis].fixed or self._cells[axis].counts[-1] == 1.0
            self._laws[asked] = WaveLaw(
                load, max(round(columns / alike), 1), same, columns, rows, total,
                fixed=even or crossing.size == 0,
            )  # fmt: skip
        return self._laws[asked]

    def _dealt(self, axis: int, sizes: np.ndarray, columns: int) -> np.ndarray:
        """Waves of features that are dealt by their counts: these are drawn, and dealt."""
        from hwsim.accelerators.waves import wave_table

        crossing, features = self._cells[1 - axis], self._shape[1 - axis]
        share = min(crossing.share, features)
        rng = np.random.default_rng((self._variant or 0, axis, features))
        counts = np.zeros((len(sizes), features), np.uint8)
        for w, rows in enumerate(sizes.tolist()):
            below = np.minimum(np.cumsum(line_counts(crossing, rows, self._shape[axis])), 1.0)
            if w and crossing.size == 0:
                counts[w] = np.minimum(counts[0], rows)
                continue
            drawn = np.searchsorted(below, rng.random(-(-features // share)))
            counts[w] = np.repeat(drawn, share)[:features]
        return wave_table(counts, (self.row_nnz, self.col_nnz)[axis], columns, "balanced")

    def _lines(self, axis: int) -> np.ndarray:
        """Distribution of the counts of rows (axis 0) or columns (1)."""
        if axis not in self._distributions:
            cells, length = self._cells[axis], self._shape[1 - axis]
            self._distributions[axis] = line_counts(cells, length, length)
        return self._distributions[axis]

    def _typical(self, axis: int) -> np.ndarray:
        cells, lines = self._cells[axis], self._shape[axis]
        share = min(cells.share, lines)
        rng = np.random.default_rng((self._variant or 0, axis))
        drawn = self._kind.line_counts(axis, self._shape, self._given, rng)
        if drawn is not None:
            drawn.setflags(write=False)
            return drawn
        counts, many = self._lines(axis), -(-lines // share)
        if self._variant is None:
            found = rng.permutation(quantiles(counts, many))
        else:
            below = np.minimum(np.cumsum(counts), 1.0)
            places = strata(self._variant, self._of, (many,), axis)
            found = np.searchsorted(below, places).astype(np.int64)
        if np.count_nonzero(counts) > 1:
            make_sum(found, self.nnz // share, counts, rng)
        found = np.repeat(found, share)[:lines]
        found.setflags(write=False)
        return found

    def _count(self) -> None:
        raise InputError(
            "mask: known by its statistics; what asks for counts by blocks needs the mask itself"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StatisticalMask) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._shape, self._given, self._kind, self._variant, self._of)

    def __repr__(self) -> str:
        return (
            f"StatisticalMask({self._shape[0]}×{self._shape[1]}, {self._kind}, "
            f"density={self.density:.4f})"
        )


def _short(counts: np.ndarray) -> np.ndarray:
    """Counts as they are kept: a model has many lines, in as many ways."""
    return counts.astype(np.int32)


def _long(counts: np.ndarray) -> np.ndarray:
    """Counts as they are read."""
    found = counts.astype(np.int64)
    found.setflags(write=False)
    return found


def _again(
    shape: tuple[int, int], density: float, kind: Pattern, variant: int | None, of: int
) -> Any:
    return StatisticalMask(shape, density, kind, variant=variant, of=of)


def spread(device: Any, op: Any) -> float:
    """Standard deviation of an op's seconds over the random masks that its mask stands for."""
    if not isinstance(op.mask, StatisticalMask):
        return 0.0
    return float(np.std([found[0].seconds for found in device.over_ways(op)]))
