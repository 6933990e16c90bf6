"""Timing real code so that the figures can be believed, on any machine.

Variants are timed in shuffled order within each round, so that drift of the clock, of other
processes and of memory hits all alike; ratios are taken within a round. A sample is repeated
calls of at least 1.5 ms together. A variant whose median is far above its minimum was disturbed
and says so.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown

SAMPLE_S = 1.5e-3
ROUNDS = 15
UNSTEADY = 1.3
_MOST_CALLS = 1 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """One variant's seconds per call.

    Attributes:
        samples: one per round, in the order of the rounds.
        calls: calls in each sample.
    """

    name: str
    samples: tuple[float, ...]
    calls: int

    @property
    def median_s(self) -> float:
        """Seconds of a call, the median over rounds."""
        return float(np.median(self.samples))

    @property
    def min_s(self) -> float:
        """Seconds of a call in the fastest round."""
        return min(self.samples)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """Lower and upper quartile over rounds, in seconds."""
        low, high = np.percentile(self.samples, [25, 75])
        return float(low), float(high)

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(self.samples)

    @property
    def steady(self) -> bool:
        """Whether the median is within 30 % of the minimum; if not, something else ran too."""
        return self.median_s <= UNSTEADY * self.min_s


@dataclass(frozen=True, slots=True)
class TimedVariants:
    """Variants timed against each other in the same rounds."""

    timings: tuple[Timing, ...]

    def __getitem__(self, name: str) -> Timing:
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise InputError(unknown("variant", name, [t.name for t in self.timings]))

    @property
    def steady(self) -> bool:
        """Whether no variant was disturbed."""
        return all(timing.steady for timing in self.timings)

    @property
    def fastest(self) -> Timing:
        """By median."""
        return min(self.timings, key=lambda timing: timing.median_s)

    def speed_up(self, name: str, over: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of time(over) / time(name), by round."""
        ratios = np.array(self[over].samples) / np.array(self[name].samples)
        low, median, high = np.percentile(ratios, [25, 50, 75])
        return float(low), float(median), float(high)


def compare(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = ROUNDS,
    sample_s: float = SAMPLE_S,
    attempts: int = 3,
    before: Callable[[], Any] | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> TimedVariants:
    """Times the variants against each other.

    Args:
        variants: name → a call without arguments. Each is called once before, to warm up.
        rounds: in each, every variant gives one sample, in shuffled order.
        sample_s: calls are repeated until a sample takes about this long.
        attempts: the whole comparison is repeated, up to so often, while any variant is unsteady;
            the last one is returned, steady or not.
        before: called before each sample and not timed, for example `flush_caches`; a sample is
            then a single call, since a second one would find what the first one left behind.
        seed: of the order.
        clock: seconds; replaced in tests.

    Raises:
        InputError: no variants, a number below 1.
    """
    if not variants:
        raise InputError("variants: none given; allowed is at least one")
    for name, value in (("rounds", rounds), ("attempts", attempts)):
        check_integer(name, value, 1)
    rng = np.random.default_rng(seed)
    names = list(variants)
    calls = {name: _calls(variants[name], sample_s, clock, before) for name in names}
    for _ in range(attempts):
        samples: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for index in rng.permutation(len(names)):
                name = names[index]
                samples[name].append(_sample(variants[name], calls[name], clock, before))
        found = TimedVariants(tuple(Timing(n, tuple(samples[n]), calls[n]) for n in names))
        if found.steady:
            break
    return found


def _calls(call, sample_s, clock, before) -> int:
    """How many calls fill a sample; the first call is not counted."""
    _sample(call, 1, clock, before)
    if before is not None:
        return 1
    calls = 1
    while calls < _MOST_CALLS:
        taken = _sample(call, calls, clock, None) * calls
        if taken >= sample_s:
            break
        calls *= 2
    return calls


def _sample(call, calls, clock, before) -> float:
    if before is not None:
        before()
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


class CacheFlush:
    """Called, it walks through three times the last-level cache, so that nothing else is in it."""

    def __init__(self, last_level_bytes: int | None = None) -> None:
        size = 3 * (last_level_bytes or cache_bytes().get("L3", 32 << 20))
        self._memory = np.ones(size // 8)

    def __call__(self) -> float:
        self._memory += 1.0
        return float(self._memory[-1])


def cache_bytes() -> dict[str, int]:
    """Level → bytes of this machine's data caches, as the kernel tells; empty if it does not."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = (index / "level").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}"] = int(size[:-1]) << 10
    return found


def processor() -> str:
    """The name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def clock_hz() -> float:
    """The clock that the system reports for the first core; 1 GHz where it reports none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("cpu MHz"):
                return float(line.partition(":")[2]) * 1e6
    except (OSError, ValueError):
        pass
    return 1e9
