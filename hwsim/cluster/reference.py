"""When tasks end, by simulation: a process for each stream, events between them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from hwsim.cluster.tasks import Tasks


def ends(tasks: Tasks) -> np.ndarray:
    """Tick at which each task ends, (tasks,); −1 of those that wait for ever."""
    world = simpy.Environment()
    done = [world.event() for _ in tasks.names]
    found = np.full(len(done), -1, np.int64)

    def run(mine: list[int]) -> Generator[Any, Any, None]:
        for i in mine:
            yield world.all_of([done[w] for w in tasks.waits[i] if w >= 0])
            yield world.timeout(tasks.ticks[i])
            found[i] = world.now
            done[i].succeed()

    for s in range(len(tasks.streams)):
        world.process(run([i for i, own in enumerate(tasks.stream) if own == s]))
    world.run()
    return found
