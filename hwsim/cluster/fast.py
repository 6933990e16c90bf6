"""When tasks end, as a recurrence in Numba; it shares no timing code with the reference."""

from __future__ import annotations

import numba
import numpy as np

from hwsim.cluster.tasks import Tasks
from hwsim.errors import InputError


def ends(tasks: Tasks) -> np.ndarray:
    """Tick at which each task ends, (tasks,).

    Raises:
        InputError: tasks that wait for each other in a circle.
    """
    stream, ticks, starts, flat = tasks.arrays()
    found = _ends(stream, ticks, starts, flat, len(tasks.streams))
    if len(found) and found.min() < 0:
        name = tasks.names[int(np.argmin(found))]
        raise InputError(f"task {name!r}: waits for itself; allowed is an order without circles")
    return found


@numba.njit(cache=True, nogil=True)
def _ends(
    stream: np.ndarray, ticks: np.ndarray, starts: np.ndarray, flat: np.ndarray, streams: int
) -> np.ndarray:
    count = len(ticks)
    end = np.full(count, -1, np.int64)
    following = np.full(count, -1, np.int64)
    head = np.full(streams, -1, np.int64)
    last = np.full(streams, -1, np.int64)
    for i in range(count):
        s = stream[i]
        if last[s] < 0:
            head[s] = i
        else:
            following[last[s]] = i
        last[s] = i
    free = np.zeros(streams, np.int64)
    moved = True
    while moved:
        moved = False
        for s in range(streams):
            while head[s] >= 0:
                i = head[s]
                at = free[s]
                ready = True
                for j in range(starts[i], starts[i + 1]):
                    if flat[j] < 0:
                        continue
                    if end[flat[j]] < 0:
                        ready = False
                        break
                    at = max(at, end[flat[j]])
                if not ready:
                    break
                end[i] = at + ticks[i]
                free[s] = end[i]
                head[s] = following[i]
                moved = True
    return end
