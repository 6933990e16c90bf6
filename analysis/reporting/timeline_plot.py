"""A timeline as a figure: what is busy with what, and what the arrays wait for.

Each kind of resource has a row. The width is cut into bins; how far a bin is filled is the share of
its time in which the resource (the mean of several channels or arrays) did that kind of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.reporting.plots import WIDTH_IN, light
from hwsim.answers.timeline import Timeline, TimelineBar
from hwsim.units import unit_of
from hwsim.workload import PHASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 600
_HEIGHTS = 100  # that a band can have: what cannot be seen is not written into the file
_SHADES = dict(zip(PHASES, (0.12, 0.26, 0.42, 0.6), strict=True))
_OPS = "product"
_WAIT = "waits for "
# Work and the wait for it share a colour; a wait is hatched.
_KINDS = {
    "compute": "ink", "weight": "sky", "input": "green", "output": "purple", "fill": "orange",
    "drain": "purple", f"{_WAIT}weights": "sky", f"{_WAIT}inputs": "green",
    f"{_WAIT}fill": "orange", f"{_WAIT}output space": "purple",
}  # fmt: skip
_CALLED = {
    "weight": "weights", "input": "inputs", "output": "results", "fill": "filling",
    "drain": "results", f"{_WAIT}fill": "waits for filling",
}  # fmt: skip
_ROWS = {"channel": "memory", "fill": "filling", "array": "array", "output": "output port"}
_ROW_IN = 0.42
# A product's name is written where its bar is wide enough for it, in shares of the width.
_LETTER = 0.0085


def timeline(line: Timeline, title: str) -> Figure:
    """The figure of a layer or of a step."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = _rows(line.resources)
    figure = Figure(figsize=(WIDTH_IN, _ROW_IN * (len(rows) + 1) + 1.3))
    axes = figure.subplots()
    scale, unit = unit_of(line.seconds)
    edges = np.linspace(0, line.seconds, _BINS + 1)
    drawn: dict[str, Any] = {}
    _products(axes, line, scale, float(len(rows)))
    for place, resources in enumerate(reversed(rows.values())):
        segments = [s for s in line.segments if s.resource in resources]
        for kind, share in _shares(segments, edges, len(resources)).items():
            low, high = place + 0.8 * share[0], place + 0.8 * share[1]
            drawn[kind] = _band(axes, edges / scale, low, high, kind)
    names = [*reversed(list(rows)), _OPS]
    axes.set_yticks(np.arange(len(names)) + 0.4, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set(xlim=(0, line.seconds / scale), ylim=(-0.1, len(names)), xlabel=f"time ({unit})")
    axes.set_title(title)
    axes.spines["left"].set_visible(False)
    named = {_CALLED.get(kind, kind): drawn[kind] for kind in _KINDS if kind in drawn}
    for phase in phases_of(line):
        patch = Patch(facecolor=light("ink"), alpha=_SHADES[phase])
        named[phase.replace("_", " ")] = patch
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5)
    return figure


def _rows(resources: Sequence[str]) -> dict[str, list[str]]:
    """Name of a row → the resources that it stands for, in the order of the data's way."""
    rows: dict[str, list[str]] = {}
    for resource in resources:
        rows.setdefault(_ROWS[resource.split()[0]], []).append(resource)
    named = {}
    for name, members in rows.items():
        several = f"{len(members)} channels" if name == "memory" else f"{len(members)} arrays"
        named[several if len(members) > 1 and name in ("memory", "array") else name] = members
    return named


def _shares(
    segments: Sequence[TimelineBar], edges: np.ndarray, members: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kind → where its band begins and ends in each bin, 0 to 1, one on top of the other."""
    width = edges[1] - edges[0]
    below = np.zeros(len(edges) - 1)
    stacked = {}
    for kind in _KINDS:
        spans = np.array([(s.start_s, s.end_s) for s in segments if s.kind == kind])
        if len(spans):
            busy = np.diff(_busy_until(spans, edges)) / (width * members)
            top = np.minimum(below + busy, 1.0)
            stacked[kind] = _seen(below), _seen(top)
            below = top
    return stacked


def _seen(heights: np.ndarray) -> np.ndarray:
    return np.round(heights * _HEIGHTS) / _HEIGHTS


def _busy_until(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Seconds of all spans that lie before each edge."""
    starts, ends = np.sort(spans[:, 0]), np.sort(spans[:, 1])
    begun, over = np.searchsorted(starts, edges), np.searchsorted(ends, edges)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (starts, ends)]
    return (begun * edges - sums[0][begun]) - (over * edges - sums[1][over])


def _band(axes: Any, edges: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str) -> Any:
    """A stepped band; a wait is hatched."""
    colour = light(_KINDS[kind])
    steps = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0))
    edges = np.append(edges[:-1][steps], edges[-1])
    low, high = (np.append(part[steps], part[-1]) for part in (low, high))
    shown = high > low
    if kind.startswith(_WAIT):
        style = {"facecolor": "none", "edgecolor": colour, "hatch": "////", "linewidth": 0.0}
    else:
        style = {"facecolor": colour, "linewidth": 0.0}
    return axes.fill_between(edges, low, high, where=shown, step="post", **style)


def _products(axes: Any, line: Timeline, scale: float, place: float) -> None:
    """The products above, from the first work on each to the end of its last result."""
    for label, phase, start, end in _spans(line):
        axes.broken_barh(
            [(start / scale, (end - start) / scale)], (place, 0.8), linewidth=0.3,
            facecolor=light("ink"), edgecolor=light("ink"), alpha=_SHADES[phase],
        )  # fmt: skip
        spoken = phase.replace("_", " ")
        fits = (end - start) / line.seconds / _LETTER
        text = next((t for t in (f"{label} {spoken}", label, spoken) if len(t) < fits), "")
        if text:
            axes.text(
                (start + end) / 2 / scale, place + 0.4, text, ha="center", va="center", fontsize=7
            )


def _spans(line: Timeline) -> list[tuple[str, str, float, float]]:
    """(label, phase, start, end) of each product: loads and fills may come before its start."""
    starts: dict[int, tuple[str, str, float]] = {}
    ends: dict[int, float] = {}
    for s in line.segments:
        ends[s.op] = max(ends.get(s.op, 0.0), s.end_s)
        if s.kind == "compute" and s.op not in starts:
            starts[s.op] = s.label, s.phase, s.start_s
    return [(*start, ends[op]) for op, start in sorted(starts.items())]


def phases_of(line: Timeline) -> list[str]:
    """The phases that a timeline shows, in a step's order."""
    seen = {s.phase for s in line.segments}
    return [phase for phase in PHASES if phase in seen]
