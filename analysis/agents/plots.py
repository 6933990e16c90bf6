"""Figures of an agent: what it learnt, how its return grew, and loss-like progress by net time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.agents.judge import Judged, Played
from analysis.agents.outcome import AGENT, AgentTable
from analysis.reporting.plots import DASHES, DEVICE_COLOURS, light, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6  # contenders in one picture


def write_all(
    outcome: AgentTable, curves: Sequence[Sequence[Mapping[str, float]]], folder: Path, stem: str
) -> list[Path]:
    """Return, and for each device densities and progress, as SVG; their paths."""
    made = []
    with styled():
        drawn = [("return", returns(curves))]
        for number, device in enumerate(outcome.contenders):
            after = f"_{device.replace(' ', '_')}" if number else ""
            drawn += [
                (f"schedules{after}", schedules(outcome.agent(device).played[0], AGENT)),
                (f"progress{after}", progress(outcome, device)),
            ]
        for name, figure in drawn:
            path = folder / f"{stem}_{name}.svg"
            save(figure, path)
            made.append(path)
    return made


def schedules(played: Played, title: str) -> Figure:
    """Density of each layer by decision, the mean over episodes of the first stratum."""
    figure, axes = _axes("decision", "density", f"{title}: density of each layer")
    found = played.episodes
    rows = [i for i, g in enumerate(played.groups) if g == played.groups[0]]
    layers = int(found.live[rows].sum(1).max())
    steps = int(found.decisions[rows].max())
    for layer in range(layers):
        own = [r for r in rows if found.live[r, layer]]
        line = found.density[:steps, own, layer].mean(1).numpy()
        axes.step(
            np.arange(1, steps + 1), line, where="mid", label=f"layer {layer + 1}",
            color=light(DEVICE_COLOURS[layer % len(DEVICE_COLOURS)]),
            linestyle=DASHES[layer // len(DEVICE_COLOURS) % len(DASHES)],
        )  # fmt: skip
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks = [2.0**-i for i in range(8) if low <= 2.0**-i <= high]
    if len(ticks) > 1:
        axes.minorticks_off()
        axes.set_yticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
    axes.legend(
        ncols=2 if layers > 8 else 1, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return figure


def returns(curves: Sequence[Sequence[Mapping[str, float]]]) -> Figure:
    """Return per finished episode by episodes seen: each seed, and their mean."""
    figure, axes = _axes("episodes finished", "return per episode", "Learning")
    for curve in curves:
        seen = np.cumsum([row["episodes"] for row in curve])
        axes.plot(seen, [row["return"] for row in curve], color=light("sky"), alpha=0.4)
    shortest = min(len(c) for c in curves)
    mean = np.mean([[row["return"] for row in c[:shortest]] for c in curves], 0)
    seen = np.mean([np.cumsum([r["episodes"] for r in c[:shortest]]) for c in curves], 0)
    axes.plot(seen, mean, color=light("ink"), label=f"mean of {len(curves)}")
    axes.legend()
    return figure


def progress(outcome: AgentTable, device: str) -> Figure:
    """What is left of the dense run's way to the target, by net time: loss against time.

    Both axes are in units of the dense run, so that episodes of different targets can be joined.
    """
    figure, axes = _axes("net time / dense net time", "way to the target left", "Progress")
    ranked = sorted(outcome.contenders[device], key=lambda c: -np.median(c.speed_ups))
    chosen = [outcome.agent(device), *[c for c in ranked if c.name != AGENT][: SHOWN - 2]]
    chosen += [c for c in ranked if c.name == "dense" and c not in chosen]
    grid = np.linspace(0.0, 1.5, 151)
    for i, contender in enumerate(chosen):
        axes.plot(
            grid, _left(contender, grid), label=contender.name.replace("_", " "),
            color=light(DEVICE_COLOURS[i % len(DEVICE_COLOURS)]),
        )  # fmt: skip
    axes.legend(loc="upper right")
    return figure


def _left(contender: Judged, grid: np.ndarray) -> np.ndarray:
    """1 − progress on a grid of net time, the mean over episodes and seeds."""
    lines = []
    for run in contender.played:
        spent, progress = run.episodes.spent.numpy(), run.episodes.progress.numpy()
        lines += [np.interp(grid, spent[:, i], 1 - progress[:, i]) for i in range(spent.shape[1])]
    return np.mean(lines, 0)


def _axes(x: str, y: str, title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.4))
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    return figure, axes
