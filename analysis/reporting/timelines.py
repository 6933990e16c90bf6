"""Timelines of a step, and of its dearest layer, on every device that has a pipeline to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim import Device, Workload
from hwsim.answers.timeline import Timeline, has_timeline, step_timeline
from hwsim.workload import PRODUCTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Beyond so many tiles a picture shows no more, and takes many seconds.
_MOST_TILES = 2000


@dataclass(frozen=True)
class Drawing:
    """A figure's content: what it shows, in words, and the timeline."""

    title: str
    caption: str
    line: Timeline

    def figure(self) -> Figure:
        """The timeline drawn."""

        from analysis.reporting.timeline_plot import timeline

        return timeline(self.line, self.title)


def of_run(run: str, folder: Path, devices: Sequence[Device]) -> list[Drawing]:
    """`drawings` of a run's step under its last masks.

    Raises:
        InputError: no run there, or a broken file.
    """
    from sparse_train.record import TrainingRecord

    return drawings(run, TrainingRecord.load(folder).last_step, devices)


def drawings(run: str, step: Workload, devices: Sequence[Device]) -> list[Drawing]:
    """Two for each device with a pipeline: its dearest layer, and the step.

    Args:
        run: name of the run that the step is of.
        step: an ordinary training step under masks.
        devices: those without a pipeline are passed over.
    """
    products = Workload(tuple(op for op in step.ops if op.kind in PRODUCTS))
    made = []
    for device in devices:
        if not products.ops or not has_timeline(device):
            continue
        layer = _dearest(device, products)
        if layer is not None:
            own = Workload(tuple(op for op in products.ops if op.name == layer))
            line = step_timeline(device, own, most_tiles=_MOST_TILES)
            what = f"Layer {layer} of {run} on {device.name}, its products one after the other"
            made.append(Drawing(f"{layer} on {device.name}", f"{what}. {_waits(line)}", line))
        line = step_timeline(device, products, most_tiles=_MOST_TILES)
        which = "the matrix products of one training step"
        if line.ops < line.ops_in_step:
            which = f"the first {line.ops} of {line.ops_in_step} matrix products of a training step"
        caption = f"{run} on {device.name}: {which}. {_waits(line)}"
        made.append(Drawing(f"A training step on {device.name}", caption, line))
    return made


def _dearest(device: Device, products: Workload) -> str | None:
    """The masked layer that costs most, or without masks the dearest of all."""
    layers = [op for op in products.ops if op.weight_shape is not None]
    masked = [op for op in layers if op.mask is not None]
    costs: dict[str, float] = {}
    for op in masked or layers:
        costs[op.name] = costs.get(op.name, 0.0) + device.estimate(op).seconds
    return max(costs, key=costs.__getitem__, default=None)


def _waits(line: Timeline) -> str:
    """What limits it, how much the arrays work, and what they wait for, the longest first."""
    from hwsim import units

    arrays = sum(name.startswith("array") for name in line.resources)
    whole = max(line.seconds * arrays, 1e-30)
    busy = sum(s.end_s - s.start_s for s in line.segments if s.kind == "compute") / whole
    text = (
        f"Limited by {units.shares(line.limits())} (its longest chain). "
        f"Arrays work {units.percent(min(busy, 1.0))} of the time"
    )
    waits = sorted(line.waiting().items(), key=lambda item: -item[1])
    named = [("filling" if cause == "fill" else cause, s / whole) for cause, s in waits if s]
    told = [f"{units.percent(min(share, 1.0))} for {cause}" for cause, share in named]
    return f"{text} and wait {', '.join(told)}." if told else f"{text}."
