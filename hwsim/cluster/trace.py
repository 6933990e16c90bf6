"""A step on a cluster as a timeline that Perfetto opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwsim import trace_events
from hwsim.cluster.tasks import TICKS_PER_S, Tasks


def events(tasks: Tasks, ends: np.ndarray) -> list[dict[str, Any]]:
    """One complete event a task: a process for each rank or stage, a thread for each stream."""
    found: list[dict[str, Any]] = []
    ranks = list(dict.fromkeys(s.partition(" ")[0] for s in tasks.streams))
    for number, rank in enumerate(ranks):
        found.append(trace_events.named("process", rank, number))
    for number, stream in enumerate(tasks.streams):
        rank, _, label = stream.partition(" ")
        found.append(trace_events.named("thread", label or rank, ranks.index(rank), number))
    for i, name in enumerate(tasks.names):
        rank = tasks.streams[tasks.stream[i]].partition(" ")[0]
        start = int(ends[i]) - tasks.ticks[i]
        found.append(trace_events.complete(
            name, ranks.index(rank), tasks.stream[i], start / TICKS_PER_S,
            tasks.ticks[i] / TICKS_PER_S,
        ))  # fmt: skip
    return found


def write_trace(path: str | Path, tasks: Tasks, ends: np.ndarray) -> None:
    """Writes the timeline, for Perfetto (ui.perfetto.dev) or chrome://tracing."""
    trace_events.write(path, events(tasks, ends))
