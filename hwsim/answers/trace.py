"""What a device does in a step, as a timeline: ops within phases, and an accelerator's parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hwsim import trace_events
from hwsim.answers.timeline import has_timeline, step_timeline
from hwsim.device import Device
from hwsim.workload import PRODUCTS, Workload

_OPS = 0
# Beyond so many tiles a simulation takes many seconds; the ops before them are shown.
_MOST_TILES = 4000


def step_events(devices: Sequence[Device], step: Workload) -> list[dict[str, Any]]:
    """Events of a step on each device.

    A process for each device: its step, within it runs of ops of one phase, within these the ops,
    which add up to the device's estimate; within an op, what its time goes to. For accelerators
    whose products run through the pipeline a second process has its first products as simulated,
    by channel, array and port; there the step begins at 0 again.
    """
    events: list[dict[str, Any]] = []
    for device in devices:
        process = len({e["pid"] for e in events})
        events += _ops(device, step, process)
        if has_timeline(device) and any(op.kind in PRODUCTS for op in step.ops):
            events += _pipeline(device, step, process + 1)
    return events


def write_step(path: str | Path, devices: Sequence[Device], step: Workload) -> None:
    """`step_events` as a file for Perfetto."""
    trace_events.write(path, step_events(devices, step))


def _ops(device: Device, step: Workload, process: int) -> list[dict[str, Any]]:
    events = [
        trace_events.named("process", device.name, process),
        trace_events.named("thread", "ops", process, _OPS),
    ]
    step.count_masks()
    seconds, now = device.seconds_of(step), 0.0
    label = step.name or "training step"
    total = sum(seconds)
    events.append(trace_events.complete(label, process, _OPS, 0.0, total,
                                        cycles=device.cycles(total)))  # fmt: skip
    pairs = zip(step.ops, seconds, strict=True)
    for phase, some in groupby(pairs, key=lambda pair: pair[0].phase):
        ops = list(some)
        took = sum(s for _, s in ops)
        events.append(trace_events.complete(phase, process, _OPS, now, took))
        for op, mine in ops:
            price = device.estimate(op)
            events.append(trace_events.complete(
                f"{op.name or op.kind} {op.kind}", process, _OPS, now, mine,
                kernel=price.kernel, bound=price.bound, cycles=device.cycles(mine),
                bytes=price.bytes, flops=price.flops, density=op.density,
            ))  # fmt: skip
            at, whole = now, sum(price.by_bound.values())
            for bound, part in price.by_bound.items():
                if len(price.by_bound) > 1 and whole:
                    share = mine * part / whole
                    events.append(trace_events.complete(bound, process, _OPS, at, share))
                    at += share
            now += mine
    return events


def _pipeline(device: Device, step: Workload, process: int) -> list[dict[str, Any]]:
    line = step_timeline(device, step, most_tiles=_MOST_TILES)
    title = f"{device.name}: pipeline, {line.ops} of {line.ops_in_step} products"
    events = [trace_events.named("process", title, process)]
    threads = {name: i for i, name in enumerate(line.resources)}
    events += [trace_events.named("thread", name, process, i) for name, i in threads.items()]
    return events + [
        trace_events.complete(f"{s.kind} {s.label}", process, threads[s.resource], s.start_s,
                              s.end_s - s.start_s, phase=s.phase)
        for s in line.segments
    ]  # fmt: skip
