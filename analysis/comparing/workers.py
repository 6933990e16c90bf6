"""Jobs on several processes, of one thread each: for small networks two of these beat one of two.

A job that dies with its process is an error here; a process whose parent has died ends itself.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hwsim import InputError
from hwsim.processes import CONTEXT, ended, started

Tell = Callable[[int, str], None]
# How long the parent waits for news before it looks whether its workers are alive.
_POLL_S = 1.0


@dataclass(frozen=True)
class News:
    """What a worker says of job number `job`: progress, its result, or its error."""

    job: int
    done: int = 0
    note: str = ""
    result: Any = None
    error: str = ""
    finished: bool = False


def run_all(
    work: Callable[[Any, Tell], Any],
    jobs: Sequence[Any],
    processes: int,
    update: Callable[[dict[int, int], str], None],
) -> list[Any]:
    """The results of `work(job, tell)` for every job, in the order of `jobs`.

    Args:
        work: a function of a module's top level; it may call `tell(units done, a few words)`.
        jobs: anything that can be pickled. They are started in this order.
        processes: how many at once.
        update: told after each piece of news: job number → units done, and the last words.

    Raises:
        InputError: that of the first job that raised one; the other processes are then ended.
            A process that died, or a job that raised anything else, is one too.
    """
    results: dict[int, Any] = {}
    done: dict[int, int] = {}
    with _pool(work, jobs, min(processes, len(jobs))) as (news, alive):
        while len(results) < len(jobs):
            try:
                item = news.get(timeout=_POLL_S)
            except queue.Empty:
                if not alive():
                    raise InputError(
                        "a worker process died (killed, out of memory, or by the error above); the "
                        "same command goes on from what is there"
                    ) from None
                continue
            if item.error:
                raise InputError(item.error)
            if item.finished:
                results[item.job] = item.result
            else:
                done[item.job] = item.done
            update(done, item.note)
    return [results[number] for number in range(len(jobs))]


@contextmanager
def _pool(work: Any, jobs: Sequence[Any], processes: int) -> Iterator[tuple[Any, Any]]:
    waiting, news = CONTEXT.Queue(), CONTEXT.Queue()
    for numbered in enumerate(jobs):
        waiting.put(numbered)
    for _ in range(processes):
        waiting.put(None)
    workers = started(_worker, [(work, waiting, news)] * processes)
    try:
        yield news, lambda: all(w.is_alive() or w.exitcode == 0 for w in workers)
    finally:
        ended(workers)
        for one in (waiting, news):
            one.cancel_join_thread()
            one.close()


def _worker(work: Any, waiting: Any, news: Any) -> None:
    while (numbered := waiting.get()) is not None:
        number, job = numbered

        def tell(done: int, note: str = "", number: int = number) -> None:
            news.put(News(number, done, note))

        try:
            news.put(News(number, result=work(job, tell), finished=True))
        except InputError as error:
            news.put(News(number, error=str(error)))
            return
