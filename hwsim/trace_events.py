"""Timelines as Chrome's trace events, which Perfetto (ui.perfetto.dev) opens.

Source: "Trace Event Format" (Chromium project): complete events and metadata; times in
microseconds. Events of a thread lie apart or one within the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.files import replacing


def named(what: str, name: str, process: int, thread: int = 0) -> dict[str, Any]:
    """The name of a process or a thread: `what` is "process" or "thread"."""
    return {"ph": "M", "name": f"{what}_name", "pid": process, "tid": thread,
            "args": {"name": name}}  # fmt: skip


def complete(
    name: str, process: int, thread: int, start_s: float, seconds: float, **about: Any
) -> dict[str, Any]:
    """Something that took its time."""
    event = {"ph": "X", "name": name, "pid": process, "tid": thread, "ts": start_s * 1e6,
             "dur": seconds * 1e6}  # fmt: skip
    return {**event, "args": about} if about else event


def write(path: str | Path, events: Sequence[dict[str, Any]]) -> None:
    """Writes a file whole or not at all."""
    content = {"traceEvents": list(events), "displayTimeUnit": "ns"}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(path)) as part:
        part.write_text(json.dumps(content), encoding="utf-8")
