"""Traces of the pipeline as records that can be drawn: who is busy, and who waits for whom."""

from __future__ import annotations

import bisect
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from hwsim.accelerators.pipelined import Pipelined
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.workload import PRODUCTS, Op, Workload


@dataclass(frozen=True)
class TimelineBar:
    """A bar of the drawing.

    Attributes:
        resource: its row ("channel 0", "fill 0", "array 0", "output port").
        kind: what is done: weight, input, output, fill, compute, drain, or "waits for …".
        op: place of the op that it belongs to among the products that are drawn.
        label, phase: of that op.
        start_s, end_s: seconds.
    """

    resource: str
    kind: str
    op: int
    label: str
    phase: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """Segments in order of start, with the rows in the order of the data's way.

    Attributes:
        ops, ops_in_step: how many ops are drawn, and how many there are.
        filling: the bound that filling an array counts as: "compute", its own work, or "port".
    """

    segments: tuple[TimelineBar, ...]
    resources: tuple[str, ...]
    seconds: float
    ops: int
    ops_in_step: int
    filling: str = "compute"

    def waiting(self) -> dict[str, float]:
        """Seconds for which arrays stood still, by cause."""
        waits: dict[str, float] = {}
        for s in self.segments:
            if s.kind.startswith("waits for "):
                cause = s.kind.removeprefix("waits for ")
                waits[cause] = waits.get(cause, 0.0) + s.end_s - s.start_s
        return waits

    def limits(self) -> dict[str, float]:
        """Seconds by bound (a word of `hwsim.estimate.BOUNDS`), the most first; they add up to all.

        They are those of the longest chain: from the end back to what ended when the last thing
        began, and so on. Of several such things it is what the same resource did before, or else
        what feeds it. A latency, in which nothing is busy, is memory's.
        """
        work = [s for s in self.segments if not s.kind.startswith("waits for ")]
        ended = defaultdict(list)
        for s in work:
            ended[s.end_s].append(s)
        ends = sorted(ended)
        spent: dict[str, float] = defaultdict(float)
        begun, at = self.seconds, None
        while begun > 0.0 and (place := bisect.bisect_right(ends, begun)):
            end = ends[place - 1]
            at = _before(at, ended[end])
            spent["memory"] += begun - end
            spent[self._bound_of(at)] += at.end_s - at.start_s
            begun = at.start_s
        spent["memory"] += begun
        ranked = sorted(spent.items(), key=lambda item: -item[1])
        return {bound: seconds for bound, seconds in ranked if seconds > 0.0}

    def _bound_of(self, bar: TimelineBar) -> str:
        kind = bar.resource.split()[0]
        return {"channel": "memory", "array": "compute", "fill": self.filling}.get(kind, "port")


# What may let a resource begin, the likeliest first.
_FEEDS = {
    "channel": ("array", "output", "fill"), "fill": ("channel", "array"),
    "array": ("fill", "channel", "output"), "output": ("array", "channel"),
}  # fmt: skip


def _before(bar: TimelineBar | None, ended: list[TimelineBar]) -> TimelineBar:
    """Which of the bars that ended when this one began it is that it waited for."""
    if bar is None:
        return ended[-1]
    feeds = _FEEDS[bar.resource.split()[0]]

    def rank(other: TimelineBar) -> int:
        kind = other.resource.split()[0]
        if other.resource == bar.resource:
            return -1
        return feeds.index(kind) if kind in feeds else len(feeds)

    return min(ended, key=rank)


def has_timeline(device: Device) -> bool:
    """Whether the device's products run through the pipeline."""
    return isinstance(device, Pipelined)


def layer_timeline(device: Device, op: Op) -> Timeline:
    """One product on an accelerator.

    Raises:
        InputError: a device or an op that does not run through the pipeline.
    """
    return step_timeline(device, Workload((op,)))


def step_timeline(device: Device, workload: Workload, *, most_tiles: int = 4000) -> Timeline:
    """The products of a step, one after the other through one pipeline.

    The inputs of a product wait for the result before it; its weights do not: what is drawn before
    the previous op's end is the prefetch. Ops after the first `most_tiles` tiles are left out, but
    the first op never is.

    Raises:
        InputError: a device that has no pipeline, or a workload without products.
    """
    from hwsim.pipeline.reference import simulate
    from hwsim.pipeline.tiles import Tiles

    if not isinstance(device, Pipelined):
        raise InputError(f"device {device.name!r}: model {device.model!r} has no pipeline to draw")
    products = [op for op in workload.ops if op.kind in PRODUCTS]
    if not products:
        raise InputError("workload: no matrix product in it; allowed is at least one")
    parts: list[Tiles] = []
    count = 0
    for _, tiles in device.step_tiles(workload):
        count += len(tiles)
        if parts and count > most_tiles:
            break
        parts.append(tiles)
    joined = Tiles.joined(parts)
    op_of = np.repeat(np.arange(len(parts)), [len(tiles) for tiles in parts]).tolist()
    run = simulate(device.machine(), joined, trace=True)
    hz = device.clock_hz
    segments = tuple(
        TimelineBar(
            e.resource, e.kind, op_of[e.tile], joined.names[e.tile],
            products[op_of[e.tile]].phase, e.start / hz, e.end / hz,
        )
        for e in run.events
    )  # fmt: skip
    order = {"channel": 0, "fill": 1, "array": 2, "output": 3}
    rows = {s.resource for s in segments}
    resources = sorted(rows, key=lambda name: (order[name.split()[0]], len(name), name))
    return Timeline(
        segments, tuple(resources), run.cycles / hz, len(parts), len(products), device.filling
    )
