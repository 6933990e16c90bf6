"""What a step is made of: tasks on streams, each after those before it and those it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsim.errors import InputError

TICKS_PER_S = 1e9


@dataclass
class Tasks:
    """Tasks in the order in which they were added; a stream does its own in that order.

    A duration is whole nanoseconds. A task starts when the one before it on its stream and all
    that it waits for are done; waits of −1 are for nothing.
    """

    streams: list[str] = field(default_factory=list)
    stream: list[int] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    waits: list[tuple[int, ...]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)

    def add(self, stream: str, name: str, seconds: float, waits: Sequence[int] = ()) -> int:
        """Appends a task; its number."""
        number = self._numbers.get(stream)
        if number is None:
            number = self._numbers[stream] = len(self.streams)
            self.streams.append(stream)
        if not seconds >= 0.0:
            raise InputError(f"task {name!r}: seconds is {seconds!r}; allowed is at least 0")
        self.stream.append(number)
        self.ticks.append(round(seconds * TICKS_PER_S))
        self.names.append(name)
        self.waits.append(tuple(waits))
        return len(self.names) - 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Stream and ticks of each task, (tasks,); what it waits for, flat, with its starts."""
        starts = np.zeros(len(self.names) + 1, np.int64)
        starts[1:] = np.cumsum([len(w) for w in self.waits])
        flat = np.array([w for some in self.waits for w in some], np.int64)
        return np.array(self.stream, np.int64), np.array(self.ticks, np.int64), starts, flat
