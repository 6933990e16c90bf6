"""Jobs of the suite side by side, one to a core, each in a process that was forked for it.

What a job draws depends on its name and the seed alone, not on what runs beside it.
"""

from __future__ import annotations

import os
import pickle
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import children
from tests.chaos.children import Broken

_TELL_EVERY_S = 30.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Job:
    """A part of the suite.

    Attributes:
        name: of it.
        work: what it does, with what the job `after` returned; it counts as it goes.
        after: name of a job that must be over, and whole, before.
    """

    name: str
    work: Callable[[random.Random, Counts, Any], Any]
    after: str | None = None


class Counts(Counter):
    """What happened how often; told after trials, it says now and then how far they are."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self._trials, self._told = name, 0, time.monotonic()

    def done(self, trials: int, total: int) -> None:
        self._trials += trials
        if time.monotonic() - self._told > _TELL_EVERY_S:
            self._told = time.monotonic()
            print(f"          {self._name}: {self._trials} of {total}", flush=True)


@dataclass(frozen=True)
class _Told:
    """What a job leaves: its result, its counts, what broke, processor seconds."""

    result: Any
    counts: dict[str, int]
    broken: str | None
    busy_s: float


def run_all(jobs: Sequence[Job], lanes: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """The counts of all jobs, and a line for each that broke; those that need one are left out.

    Args:
        jobs: started in this order, as those they need are over.
        lanes: how many at once.
        folder: for what they tell.
    """
    waiting, running = list(jobs), {}
    results: dict[str, Any] = {}
    counts, broken = Counter(), []
    while waiting or running:
        ready = [job for job in waiting if job.after is None or job.after in results]
        for job in ready[: lanes - len(running)]:
            waiting.remove(job)
            path = folder / f"told-{jobs.index(job)}"
            running[_begun(job, results.get(job.after), seed, path)] = (job, path, time.monotonic())
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid not in running:  # 0: none has ended; else a worker of a lane that was killed
            time.sleep(_LOOK_EVERY_S)
            continue
        job, path, began = running.pop(pid)
        told = _told(path, status)
        counts.update(told.counts)
        results[job.name] = told.result
        if told.broken is not None:
            del results[job.name]
            lost = [other.name for other in waiting if other.after == job.name]
            waiting = [other for other in waiting if other.after != job.name]
            broken.append("\n  left out: ".join([f"{job.name}: {told.broken}", *lost]))
            print(f"BROKEN {broken[-1]}", flush=True)
        print(
            f"{time.monotonic() - began:6.0f} s, {told.busy_s:5.0f} s of processors: {job.name} "
            f"({len(waiting) + len(running)} to go)", flush=True,
        )  # fmt: skip
    return counts, broken


def _told(path: Path, status: int) -> _Told:
    if path.exists():
        return pickle.loads(path.read_bytes())
    return _Told(None, {}, f"its process ended with {children.code_of(status)}", 0.0)


def _begun(job: Job, given: Any, seed: int, path: Path) -> int:
    """The process of a job. It stays in this one's group, so that Ctrl-C reaches both."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        children.end_with_parent()
        children.adopt()
        path.write_bytes(pickle.dumps(_done(job, given, seed)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _done(job: Job, given: Any, seed: int) -> _Told:
    counts = Counts(job.name)
    result, broken = None, None
    try:
        result = job.work(random.Random(f"{seed} {job.name}"), counts, given)
    except Broken as error:
        broken = str(error)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy_s = sum(one.ru_utime + one.ru_stime for one in used)
    return _Told(result, dict(counts), broken, busy_s)
