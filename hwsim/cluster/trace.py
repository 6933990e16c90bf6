"""A timeline as Chrome's trace events, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hwsim.cluster.tasks import TICKS_PER_S, Tasks


def trace_events(tasks: Tasks, ends: np.ndarray) -> list[dict]:
    """One complete event a task: a process for each rank or stage, a thread for each stream.

    Source: "Trace Event Format", complete events; times in microseconds.
    """
    events: list[dict] = []
    scale = 1e6 / TICKS_PER_S
    ranks = list(dict.fromkeys(s.partition(" ")[0] for s in tasks.streams))
    for number, rank in enumerate(ranks):
        events.append({"ph": "M", "name": "process_name", "pid": number, "tid": 0,
                       "args": {"name": rank}})  # fmt: skip
    for number, stream in enumerate(tasks.streams):
        rank, _, label = stream.partition(" ")
        events.append({"ph": "M", "name": "thread_name", "pid": ranks.index(rank), "tid": number,
                       "args": {"name": label or rank}})  # fmt: skip
    for i, name in enumerate(tasks.names):
        rank = tasks.streams[tasks.stream[i]].partition(" ")[0]
        events.append({
            "ph": "X", "name": name, "pid": ranks.index(rank), "tid": tasks.stream[i],
            "ts": (int(ends[i]) - tasks.ticks[i]) * scale, "dur": tasks.ticks[i] * scale,
        })  # fmt: skip
    return events


def write_trace(path: str | Path, tasks: Tasks, ends: np.ndarray) -> None:
    """Writes the timeline, for Perfetto (ui.perfetto.dev) or chrome://tracing."""
    content = {"traceEvents": trace_events(tasks, ends), "displayTimeUnit": "ms"}
    Path(path).write_text(json.dumps(content), encoding="utf-8")
