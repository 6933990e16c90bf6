"""Jobs on several processes, of one thread each: for small networks two of these beat one of two.

A job that dies with its process is an error here; a process whose parent has died ends itself.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hwsim import InputError

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
    from multiprocessing import get_context

    # Fork would copy torch's and numba's threads in whatever state they are in.
    context = get_context("spawn")
    waiting, news = context.Queue(), context.Queue()
    for numbered in enumerate(jobs):
        waiting.put(numbered)
    for _ in range(processes):
        waiting.put(None)
    workers = [
        context.Process(target=_worker, args=(work, waiting, news, os.getpid()), daemon=True)
        for _ in range(processes)
    ]
    # Each worker has one core: its libraries must not start a thread for every core there is.
    with _environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1"):
        for worker in workers:
            worker.start()
    try:
        yield news, lambda: all(w.is_alive() or w.exitcode == 0 for w in workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        for one in (waiting, news):
            one.cancel_join_thread()
            one.close()


def _worker(work: Any, waiting: Any, news: Any, parent: int) -> None:
    import signal

    # Ctrl-C reaches the whole group; the parent decides, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while (numbered := waiting.get()) is not None:
        number, job = numbered

        def tell(done: int, note: str = "", number: int = number) -> None:
            if os.getppid() != parent:
                os._exit(1)
            news.put(News(number, done, note))

        try:
            news.put(News(number, result=work(job, tell), finished=True))
        except InputError as error:
            news.put(News(number, error=str(error)))
            return


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, so that it holds no folder of a dead command."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
