"""Processes of one thread each, which end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

from hwsim.files import take_back

_POLL_S = 1.0
_LAST_S = 5.0  # that a process which is ended has to take back what it has half written
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Fork would copy torch's and numba's threads in whatever state they are in.
CONTEXT = get_context("spawn")


def started(target: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """One process for each tuple of arguments.

    Ctrl-C, which reaches the whole group, is left to the parent. A process whose parent is gone
    ends itself, so that it holds no folder of a dead command.

    Args:
        target: a function of a module's top level.
        arguments: what can be pickled, pipes and queues of CONTEXT among it.
    """
    parent = os.getpid()
    made = [
        CONTEXT.Process(target=_run, args=(target, own, parent), daemon=True) for own in arguments
    ]
    # Each has one core: its libraries must not start a thread for every core there is.
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        for process in made:
            process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return made


def ended(processes: Sequence[Any]) -> None:
    """Ends processes that may be at work, and waits until they are gone.

    Each takes back what it has half written; one that is deaf to that is killed.
    """
    for process in processes:
        process.terminate()
    last = time.monotonic() + _LAST_S
    for process in processes:
        process.join(max(last - time.monotonic(), 0.0))
        if process.is_alive():
            process.kill()
            process.join()


def _run(target: Callable[..., Any], arguments: tuple[Any, ...], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    target(*arguments)


def _leave(number: int, _: Any) -> None:
    """Ends at once: an exception here would surface in whatever was going on, or at exit."""
    take_back()
    os._exit(128 + number)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    take_back()
    os._exit(1)
