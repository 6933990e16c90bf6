"""Running a compiled function on several ranges at once."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hwsim.checks import check_integer


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None, work: int, least: int) -> int:
    """How many threads to use: what was asked for, else one per `least` units of work.

    Raises:
        InputError: `threads` is no integer of at least 1.
    """
    if threads is None:
        return max(1, min(available_threads(), work // least))
    check_integer("threads", threads, 1)
    return threads


def ranges(total: int, parts: int, grain: int = 1) -> list[tuple[int, int]]:
    """At most `parts` ranges that cover 0 … total, cut at multiples of `grain`."""
    if parts == 1:
        return [(0, total)]
    blocks = -(-total // grain)
    parts = max(1, min(parts, blocks))
    cuts = [min(total, grain * (blocks * p // parts)) for p in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def run(function: Callable[..., Any], calls: list[tuple]) -> list[Any]:
    """Results of `function(*arguments)` for each call, at once; it must release the GIL.

    Plain threads instead of `numba.prange`: they survive a fork and need no threading layer. The
    first call runs on the calling thread.
    """
    if len(calls) <= 1:
        return [function(*arguments) for arguments in calls]
    futures = [_pool(os.getpid()).submit(function, *arguments) for arguments in calls[1:]]
    first = function(*calls[0])
    return [first, *(future.result() for future in futures)]


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool for the life of a process; a forked child makes its own."""
    return ThreadPoolExecutor(max_workers=max(1, available_threads()), thread_name_prefix="hwsim")
