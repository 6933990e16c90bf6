"""Exact simulation of set-associative caches, level behind level."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import InputError, unknown

POLICIES = ("lru", "fifo")
_BLOCK = 1 << 15
_SPARE = 16
_LARGE_BYTES = 1 << 18
ZEN4_LEVELS = (("L1", 64, 8), ("L2", 2048, 8), ("L3", 32768, 16))


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """What one level saw.

    Attributes:
        name: of the level.
        loads, stores: accesses that came from above: the program's, or misses and write-backs of
            the level above.
        load_misses, store_misses: those that did not find their line. A store that misses fetches
            its line from below (write-allocate).
        evictions: lines that fell out to make room.
        write_backs: those that were dirty and went to the level below.
    """

    name: str
    loads: int
    stores: int
    load_misses: int
    store_misses: int
    evictions: int
    write_backs: int

    @property
    def load_hits(self) -> int:
        """Loads that the level holds."""
        return self.loads - self.load_misses

    @property
    def misses(self) -> int:
        """Accesses that go on to the next level."""
        return self.load_misses + self.store_misses

    @property
    def hits(self) -> int:
        """Accesses that the level holds."""
        return self.loads + self.stores - self.misses


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What a trace did to each level, nearest the core first."""

    levels: tuple[LevelCounts, ...]
    line_bytes: int

    def __getitem__(self, name: str) -> LevelCounts:
        for level in self.levels:
            if level.name == name:
                return level
        raise InputError(unknown("cache level", name, [level.name for level in self.levels]))

    @property
    def memory_bytes(self) -> int:
        """Bytes between the last level and main memory, both ways."""
        last = self.levels[-1]
        return (last.misses + last.write_backs) * self.line_bytes

    def bytes_below(self, name: str) -> int:
        """Bytes between level `name` and whatever lies below it, both ways."""
        level = self[name]
        return (level.misses + level.write_backs) * self.line_bytes


class CacheHierarchy:
    """Caches with their content; `access` may be called again and again.

    Write-back and write-allocate. No level includes or excludes another: a miss fetches the line
    from below into this level, and a dirty line that falls out is stored to the level below.

    Args:
        levels: (name, sets, ways), nearest the core first. Sets are a power of two.
        line_bytes: a power of two.
        policy: "lru" or "fifo", in every level.
        stores_refresh: whether a store that hits makes its line the newest under LRU. False is
            the convention of pycachesim, which the reference data follow; True is the textbook's.

    Raises:
        InputError: no level, a repeated name, a size that is not allowed.
    """

    def __init__(
        self,
        levels: Sequence[tuple[str, int, int]] = ZEN4_LEVELS,
        line_bytes: int = 64,
        policy: str = "lru",
        *,
        stores_refresh: bool = False,
    ) -> None:
        from hwsim.caches import _cache_kernels as kernels

        self._kernels = kernels
        if policy not in POLICIES:
            raise InputError(unknown("policy", policy, POLICIES))
        self._line_bits = np.uint64(_log2("line_bytes", line_bytes))
        self.line_bytes = line_bytes
        if not levels:
            raise InputError("levels: none given; allowed is at least one (name, sets, ways)")
        self._levels = [_Level(*_checked_level(level), kernels) for level in levels]
        names = [level.name for level in self._levels]
        if len(set(names)) < len(names):
            raise InputError(f"levels: names are {', '.join(names)}; allowed are different ones")
        lru = policy == "lru"
        self._load_flags = np.uint64(kernels.MOVES if lru else 0)
        moves = kernels.MOVES if lru and stores_refresh else 0
        self._store_flags = np.uint64(kernels.DIRTY | kernels.STORE | moves)
        self._fifo = None if lru else 1
        # Until the first store there is no dirty line, and a shorter way through the levels.
        self._clean = all(level.run is kernels.level_pass for level in self._levels)
        tag_bits = min(kernels.TAG_BITS + int(level.set_bits) for level in self._levels)
        self._address_limit = 1 << min(tag_bits + int(self._line_bits), 60)
        self._accesses = [0, 0]
        # Level n sees at most 2ⁿ events per access.
        self._buffers = [
            np.zeros((_BLOCK << n) + _SPARE, np.uint64) for n in range(len(levels) + 1)
        ]

    def access(self, addresses: np.ndarray, is_store: np.ndarray | None = None) -> None:
        """Runs a trace through the caches, in order.

        Args:
            addresses: integer byte addresses, one-dimensional, not negative. An access lies in
                one line.
            is_store: boolean or integer, the same length; None if there are loads only.

        Raises:
            InputError: a wrong type or shape, before any cache is touched; an address out of
                range, when its block of the trace is reached.
        """
        addresses, is_store = _checked_trace(addresses, is_store)
        for start in range(0, addresses.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            stores = None if is_store is None else is_store[block]
            if self._clean and (stores is None or not stores.any()):
                self._load_block(addresses[block])
            else:
                self._clean = False
                self._block(addresses[block], stores)

    def _load_block(self, addresses: np.ndarray) -> None:
        """Loads into caches without a dirty line: nothing is ever written back."""
        k = self._kernels
        count, seen = k.fold_loads(addresses, self._line_bits, self._buffers[0])
        self._check_addresses(int(seen), addresses)
        self._accesses[0] += addresses.size
        for depth, level in enumerate(self._levels):
            count = k.load_pass(
                self._buffers[depth], count, level.entries, level.ways_type, level.set_bits,
                self._fifo, level.ahead, self._buffers[depth + 1],
            )  # fmt: skip
            level.misses[0] += count
            if count == 0:
                break

    def _block(self, addresses: np.ndarray, is_store: np.ndarray | None) -> None:
        k = self._kernels
        flags = (self._load_flags, self._store_flags)
        if is_store is None:
            is_store = np.zeros(addresses.size, np.int8)
        count, stores, seen = k.fold(addresses, is_store, self._line_bits, *flags, self._buffers[0])
        self._check_addresses(int(seen), addresses)
        self._accesses[0] += addresses.size - int(stores)
        self._accesses[1] += int(stores)
        for depth, level in enumerate(self._levels):
            count = level.run(
                self._buffers[depth], count, level.entries, level.ways_type, level.set_bits,
                *flags, self._buffers[depth + 1], level.misses,
            )  # fmt: skip
            if count == 0:
                break

    def _check_addresses(self, seen: int, addresses: np.ndarray) -> None:
        # `seen` has every bit that any address has: below a power of two if all of them are.
        if seen >= self._address_limit:
            wrong = next(int(a) for a in addresses if not 0 <= a < self._address_limit)
            raise InputError(
                f"addresses: value is {wrong}; allowed is 0 … {self._address_limit - 1} for "
                "these levels"
            )

    def misses(self) -> np.ndarray:
        """Misses of each level so far, as float64: cheaper than `counts`."""
        return np.array([float(level.misses[0] + level.misses[1]) for level in self._levels])

    def counts(self) -> CacheCounts:
        """What has happened since the caches were empty."""
        found = []
        loads, stores = self._accesses
        for level in self._levels:
            load_misses, store_misses, write_backs = (int(n) for n in level.misses)
            held = int(np.count_nonzero(level.entries != self._kernels.EMPTY))
            found.append(
                LevelCounts(
                    level.name, loads, stores, load_misses, store_misses,
                    load_misses + store_misses - held, write_backs,
                )
            )  # fmt: skip
            loads, stores = load_misses + store_misses, write_backs
        return CacheCounts(tuple(found), self.line_bytes)


def simulate(
    addresses: np.ndarray,
    is_store: np.ndarray | None = None,
    levels: Sequence[tuple[str, int, int]] = ZEN4_LEVELS,
    line_bytes: int = 64,
    policy: str = "lru",
    *,
    stores_refresh: bool = False,
) -> CacheCounts:
    """Hits, misses and evictions of one trace from empty caches; see `CacheHierarchy`.

    >>> simulate(np.array([0, 8, 64, 0]), levels=[("L1", 1, 1)])["L1"].load_misses
    3
    """
    caches = CacheHierarchy(levels, line_bytes, policy, stores_refresh=stores_refresh)
    caches.access(addresses, is_store)
    return caches.counts()


def simulate_trace(
    trace: Iterable[tuple[np.ndarray, np.ndarray | None]],
    levels: Sequence[tuple[str, int, int]] = ZEN4_LEVELS,
    line_bytes: int = 64,
    policy: str = "lru",
    *,
    stores_refresh: bool = False,
) -> CacheCounts:
    """`simulate` for a trace in pieces (see `hwsim.caches.traces`), never held whole."""
    caches = CacheHierarchy(levels, line_bytes, policy, stores_refresh=stores_refresh)
    for addresses, is_store in trace:
        caches.access(addresses, is_store)
    return caches.counts()


def _checked_trace(addresses: Any, is_store: Any) -> tuple[np.ndarray, np.ndarray | None]:
    addresses = np.asarray(addresses)
    if addresses.ndim != 1 or addresses.dtype.kind not in "iu":
        raise InputError(
            f"addresses: {addresses.dtype} of shape {addresses.shape}; allowed is a "
            "one-dimensional integer array"
        )
    if is_store is None:
        return addresses, None
    is_store = np.asarray(is_store)
    if is_store.shape != addresses.shape or is_store.dtype.kind not in "biu":
        raise InputError(
            f"is_store: {is_store.dtype} of shape {is_store.shape}; allowed is boolean or "
            f"integer of the shape of addresses, {addresses.shape}"
        )
    return addresses, is_store


class _Level:
    """One level's content and counters."""

    def __init__(self, name: str, set_bits: int, ways: int, kernels: Any) -> None:
        self.name = name
        self.set_bits = np.uint64(set_bits)
        wide = ways > kernels.WIDEST_VECTOR
        self.run = kernels.wide_level_pass if wide else kernels.level_pass
        self.ways_type = ways if wide else (0,) * ways
        self.entries = aligned_full((1 << set_bits) * kernels.lanes(ways), kernels.EMPTY)
        self.misses = np.zeros(3, np.uint64)
        self.ahead = 1 if self.entries.nbytes > _LARGE_BYTES else None


def aligned_full(size: int, value: int) -> np.ndarray:
    """uint32 array whose first element lies on a 128-byte boundary."""
    room = np.empty(size + 32, np.uint32)
    skip = (-room.ctypes.data % 128) // 4
    array = room[skip : skip + size]
    array[:] = value
    return array


def _checked_level(level: Any) -> tuple[str, int, int]:
    try:
        name, sets, ways = level
    except (TypeError, ValueError):
        raise InputError(f"levels: {level!r}; allowed is (name, sets, ways)") from None
    set_bits = _log2(f"sets of {name}", sets)
    if not _whole(ways) or not 1 <= ways <= 1 << 16:
        raise InputError(f"ways of {name}: value is {ways!r}; allowed is an integer 1 … 65536")
    return str(name), set_bits, int(ways)


def _log2(name: str, value: Any) -> int:
    if not _whole(value) or value < 1 or value > 1 << 24 or value & (value - 1):
        raise InputError(f"{name}: value is {value!r}; allowed is a power of two, 1 … 2²⁴")
    return int(value).bit_length() - 1


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
