"""The memory accesses of the CPU kernels on one layer, made piece by piece.

A trace is never held whole: pieces of some ten thousand accesses are made in reused memory and
go straight into `hwsim.caches.cache`. An access stands for one cache line that a kernel touches
next; what it touches in the same line right after is a sure hit and left out, so misses are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.caches.cache import ZEN4_LEVELS, CacheCounts, CacheHierarchy, simulate_trace
from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from hwsim.kernels.cpu.layout import MOST, TILE, chunk_for, lanes_for
from hwsim.mask import Mask

KERNELS = ("csr", "dense", "gather", "sampled", "tiled")
_CHUNKED = ("sampled", "tiled")
_PIECE = 1 << 16
# Arrays start far apart, on different lines of a page: nothing is aligned to anything else.
_BASES = tuple((number << 36) + number * 0x1240 for number in range(5))

Piece = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class KernelTrace:
    """The accesses of one kernel's forward product (grad_weight for "sampled") on a layer.

    Iterate it for (addresses, is_store) pieces, once or again; each overwrites the one before.

    Args:
        kernel: one of KERNELS, as in `hwsim.kernels.cpu.linear`. "dense" is a product in blocks
            of 64 × 64 × 256.
        mask: of the layer; "dense" takes its shape only.
        batch: samples.

    Raises:
        InputError: an unknown kernel, a batch below 1, or a layer too large for 16-bit indices.
    """

    kernel: str
    mask: Mask
    batch: int

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise InputError(unknown("kernel", self.kernel, KERNELS))
        check_integer("batch", self.batch, 1)
        if max(self.mask.shape) > MOST:
            raise InputError(f"mask: shape is {self.mask.shape}; allowed is up to {MOST} a side")

    @property
    def rows(self) -> int:
        """Outputs of the mask."""
        return self.mask.shape[0]

    def __iter__(self) -> Iterator[Piece]:
        if self.kernel == "dense":
            yield from self._dense()
        else:
            for _, piece in self.of_rows([(0, self.rows, True)]):
                yield piece

    def of_rows(self, ranges: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, Piece]]:
        """The accesses of ranges of rows (start, stop, whole), as (number of the range, piece).

        A range that is not whole gives its streams only: weights and outputs, not the inputs.
        The order is the kernel's: one that works by tiles gives each range once per tile, chunk
        of rows and batch block. Its ranges are cut at chunks.
        """
        from hwsim.kernels.cpu.tiled_passes import build

        if self.kernel == "gather":
            yield from self._groups(ranges)
            return
        tile, passes, sizes = self._plan()
        active, columns = np.flatnonzero(self.mask.array), self.mask.shape[1]
        sorted_rows = self.chunk if self.kernel in _CHUNKED else 1
        order, pointers, index, _ = build(active, self.mask.shape, tile, sorted_rows, False)
        most = self._most_per_row(pointers, sizes)
        step = max(1, _PIECE // most)
        memory = np.empty(step * most, np.int64), np.empty(step * most, np.int8)
        for block in range(passes):
            for first in range(0, self.rows, self.chunk):
                for t in range(-(-columns // tile)):
                    bases = list(_BASES)
                    bases[2] += (block * columns + t * tile) * sizes[2]
                    bases[3] += block * self.rows * max(sizes[3:6])
                    loaded = list(sizes)
                    if t == 0 and self.kernel == "tiled":
                        loaded[3] = 0  # accumulators start from zero
                    own = slice(t * self.rows, (t + 1) * self.rows + 1)
                    given = (order[own], pointers[own], index, tuple(bases), tuple(loaded))
                    for number, (start, stop, whole) in enumerate(ranges):
                        span = max(start, first), min(stop, first + self.chunk)
                        for piece in _emitted(given, span, step, whole, memory):
                            yield number, piece

    def _groups(self, ranges: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, Piece]]:
        """`of_rows` of the gather kernel, whose rows are in groups of eight, sorted by weights."""
        from hwsim.caches import _trace_kernels as emitters
        from hwsim.kernels.cpu import gather_passes

        columns = self.mask.shape[1]
        csr = gather_passes.csr(self.mask.array, False)
        order = gather_passes.sorted_places(csr[0])
        starts, index, _, rest, rest_index, _ = gather_passes.lay_out(order, *csr)
        layout = (order, starts, index, rest, rest_index)
        most = 4 * (int(np.diff(starts).max()) + int(np.diff(rest[::8]).max())) + 8
        step = max(1, _PIECE // most)
        addresses, is_store = np.empty(step * most, np.int64), np.empty(step * most, np.int8)
        for sample in range(self.batch):
            bases = list(_BASES)
            bases[2] += sample * columns * 4
            bases[3] += sample * self.rows * 4
            for number, (start, stop, whole) in enumerate(ranges):
                for first in range(start // 8, -(-stop // 8), step):
                    last = min(first + step, -(-stop // 8))
                    count = emitters.emit_groups(
                        layout, self.rows, first, last, tuple(bases), int(whole),
                        addresses, is_store,
                    )  # fmt: skip
                    yield number, (addresses[:count], is_store[:count])

    @property
    def grain(self) -> int:
        """Rows that a sample takes or leaves together."""
        return {"gather": 8, "sampled": self.chunk, "tiled": self.chunk}.get(self.kernel, 1)

    @property
    def chunk(self) -> int:
        """Rows that go through all tiles together."""
        return chunk_for(self.rows, 1) if self.kernel in _CHUNKED else self.rows

    def _plan(self) -> tuple[int, int, tuple[int, ...]]:
        """(columns per tile, passes over the matrix, sizes for `emit_rows`)."""
        lanes = lanes_for(self.batch)
        blocks, vector = -(-self.batch // lanes), 4 * lanes
        if self.kernel == "tiled":
            return TILE, blocks, (2, 4, vector, vector, 0, vector, 0)
        if self.kernel == "sampled":
            return TILE, blocks, (2, 0, vector, vector, 0, 0, 4)
        return MOST, 1, (4, 4, 4 * self.batch, 0, 4 * self.batch, 0, 0)

    @staticmethod
    def _most_per_row(pointers: np.ndarray, sizes: tuple[int, ...]) -> int:
        """The most accesses that one row of one tile can make."""
        lines = [-(-size // 64) for size in sizes]
        weights = int(np.diff(pointers).max(initial=0))
        each = lines[0] + lines[1] + lines[2] + 2 * lines[4] + 2 * lines[6]
        return weights * each + lines[3] + lines[4] + lines[5] + 4

    def _dense(self) -> Iterator[Piece]:
        from hwsim.caches import _trace_kernels as emitters

        n, k = self.mask.shape
        m = self.batch
        addresses, is_store = np.empty(_PIECE, np.int64), np.empty(_PIECE, np.int8)
        for j in range(0, n, 64):
            for p in range(0, k, 256):
                for i in range(0, m, 64):
                    count = emitters.emit_dense(
                        i, min(i + 64, m), j, min(j + 64, n), p, min(p + 256, k), n, k,
                        _BASES[:3], addresses, is_store,
                    )  # fmt: skip
                    yield addresses[:count], is_store[:count]


def _emitted(
    given: tuple, span: tuple[int, int], step: int, whole: bool, memory: Piece
) -> Iterator[Piece]:
    """The pieces of the rows at some places of one tile and batch block."""
    from hwsim.caches import _trace_kernels as emitters

    order, pointers, index, bases, sizes = given
    addresses, is_store = memory
    start, stop = span
    for first in range(start, stop, step):
        last = min(first + step, stop)
        where = (first, last, bases, sizes, addresses, is_store)
        if whole:
            count = emitters.emit_rows(order, pointers, index, *where)
        else:
            count = emitters.emit_streams(order, pointers, *where)
        yield addresses[:count], is_store[:count]


@dataclass(frozen=True, slots=True)
class SampledTraffic:
    """Misses of a whole layer, estimated from some of its rows.

    Attributes:
        misses: level → estimated misses.
        bound: level → how far off the estimate may be, in misses: 95 % confidence from the spread
            between the sampled groups of rows, with Student's t and without replacement. An error
            that all groups share does not show in it: inputs that so few rows do not warm.
        share: of the rows that were simulated.
    """

    misses: dict[str, float]
    bound: dict[str, float]
    share: float


def layer_counts(
    kernel: str, mask: Mask, batch: int, levels: Any = ZEN4_LEVELS, policy: str = "lru"
) -> CacheCounts:
    """What every access of a kernel does to empty caches; see `KernelTrace`."""
    return simulate_trace(KernelTrace(kernel, mask, batch), levels, policy=policy)


def sampled_counts(
    kernel: str,
    mask: Mask,
    batch: int,
    levels: Any = ZEN4_LEVELS,
    policy: str = "lru",
    *,
    groups: int = 8,
    rows_per_group: int = 32,
    rng: np.random.Generator,
) -> SampledTraffic:
    """`layer_counts` from groups of rows, for large layers.

    The first rows count as they are, with all that is cold. Of the rest, `groups` groups of
    consecutive rows are drawn, one from each of as many equal parts; each is preceded by twice as
    many rows that warm the caches and are not counted. Groups of the tiled kernels are whole
    chunks of rows, which share the inputs of a tile; the gather kernel's rows count in its own
    order, by eights. Their mean, times the number of groups that
    would fit, stands for the rest. Of rows in between, weights and outputs are still streamed
    through the caches, uncounted, so that they take the place that is theirs. A layer with hardly
    more rows is simulated whole.

    Source: Cochran (1977), Sampling Techniques, chapter 5 (stratified, one unit a stratum, with
    the spread between strata as a bound of that within).

    Raises:
        InputError: kernel "dense" (it has no rows to leave out), or numbers below 2 and 1.
    """
    if kernel == "dense":
        raise InputError("kernel: 'dense' cannot be sampled; allowed: csr, gather, sampled, tiled")
    for name, value, least in (("groups", groups, 2), ("rows_per_group", rows_per_group, 1)):
        check_integer(name, value, least)
    trace = KernelTrace(kernel, mask, batch)
    grain = trace.grain
    size = max(1, rows_per_group // grain)
    units = -(-trace.rows // grain)
    ranges = _row_ranges(units, groups, size, rng)
    if ranges is None:
        counts = simulate_trace(trace, levels, policy=policy)
        exact = {level.name: float(level.misses) for level in counts.levels}
        return SampledTraffic(exact, dict.fromkeys(exact, 0.0), 1.0)
    caches = CacheHierarchy(levels, policy=policy)
    per_range = np.zeros((len(ranges), len(caches.counts().levels)))
    before = caches.misses()
    rows = [(a * grain, min(b * grain, trace.rows), whole) for a, b, whole in ranges]
    for number, (addresses, is_store) in trace.of_rows(rows):
        caches.access(addresses, is_store)
        after = caches.misses()
        per_range[number] += after - before
        before = after
    return _estimate(caches, per_range, units, size, ranges)


def _row_ranges(
    rows: int, groups: int, size: int, rng: np.random.Generator
) -> list[tuple[int, int, bool]] | None:
    """First rows, then (in between, warming, counted) in turn; None if there are too few rows."""
    first = 2 * size
    stratum = (rows - first) / groups
    if stratum < 4 * size:
        return None
    ranges = [(0, first, True)]
    for g in range(groups):
        low, high = first + g * stratum, first + (g + 1) * stratum
        start = int(rng.integers(math.ceil(low) + 2 * size, int(high) - size + 1))
        ranges.append((ranges[-1][1], start - 2 * size, False))
        ranges += [(start - 2 * size, start, True), (start, start + size, True)]
    ranges.append((ranges[-1][1], rows, False))
    return ranges


def _estimate(
    caches: CacheHierarchy, per_range: np.ndarray, rows: int, size: int, ranges: list
) -> SampledTraffic:
    from scipy.stats import t as student

    counted = per_range[3::3]
    groups = len(counted)
    rest = rows - ranges[0][1]
    scale = rest / size
    total = per_range[0] + counted.mean(axis=0) * scale
    deviation = counted.std(axis=0, ddof=1) * math.sqrt((1 - groups * size / rest) / groups)
    bound = student.ppf(0.975, groups - 1) * deviation * scale
    names = [level.name for level in caches.counts().levels]
    simulated = sum(stop - start for start, stop, whole in ranges if whole)
    return SampledTraffic(
        dict(zip(names, total.tolist(), strict=True)),
        dict(zip(names, bound.tolist(), strict=True)),
        simulated / rows,
    )
