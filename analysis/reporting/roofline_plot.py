"""A step under the roofs of devices: FLOP/s against FLOP per byte, area by time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.estimating.intensity import Roof, Spot, roof_of, spots
from analysis.reporting.plots import light, save, styled
from hwsim import Device, Workload, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("sky", "vermilion", "green", "orange", "purple", "ink")
# Points of no arithmetic lie on no logarithm.
_LEAST = 1e-3
_LARGEST, _SMALLEST = 900.0, 6.0


def draw(
    name: str, devices: Sequence[Device], step: Workload, path: Path, priced: str = ""
) -> Path:
    """Draws a step under the roof of each device; the file's suffix says how.

    Args:
        priced: what the step is of, for the foot of the figure.
    """
    parts = {d.name: (roof_of(d, step), spots(d, step)) for d in devices}
    with styled():
        figure = roofline(parts, f"Training step of {name}")
        figure.supxlabel(priced, fontsize=8)
        save(figure, path)
    return path.absolute()


def roofline(parts: Mapping[str, tuple[Roof, Mapping[str, list[Spot]]]], title: str) -> Figure:
    """One panel a device; kinds that do no arithmetic are left out, and said so."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, (device, (roof, kinds)) in zip(panels, parts.items(), strict=True):
        _panel(axes, roof, kinds)
        axes.set_title(f"{title} on {device}, {roof.dtype}; areas are seconds")
    return figure


def _panel(axes: Any, roof: Roof, kinds: Mapping[str, list[Spot]]) -> None:
    whole_s = sum(s.seconds for spots in kinds.values() for s in spots)
    busy = {k: sum(s.seconds for s in spots) for k, spots in kinds.items()}
    ranked = sorted(kinds, key=lambda k: -busy[k])
    if len(ranked) > len(_COLOURS):
        rest = ranked[len(_COLOURS) - 1 :]
        kinds = {**kinds, "others": [s for k in rest for s in kinds[k]]}
        busy["others"] = sum(busy[k] for k in rest)
        ranked = [*ranked[: len(_COLOURS) - 1], "others"]
    left = 0.0
    for place, kind in enumerate(ranked):
        shown = [s for s in kinds[kind] if s.flops and _LEAST < s.intensity < math.inf]
        left += busy[kind] - sum(s.seconds for s in shown)
        if not shown:
            continue
        area = [max(_SMALLEST, _LARGEST * s.seconds / whole_s) for s in shown]
        axes.scatter(
            [s.intensity for s in shown], [s.flops_per_s for s in shown], s=area, alpha=0.75,
            color=light(_COLOURS[place]), linewidths=0, zorder=3,
            label=f"{kind}: {units.percent(busy[kind] / whole_s)}",
        )  # fmt: skip
    points = [s for k in ranked for s in kinds[k] if s.flops and _LEAST < s.intensity < math.inf]
    xs = [s.intensity for s in points] + ([roof.ridge] if roof.ridge > 0 else [])
    low, high = min(xs, default=1.0) / 2.0, max(xs, default=1.0) * 4.0
    x = np.geomspace(low, high, 200)
    axes.plot(
        x, np.minimum(x * roof.bytes_per_s, roof.flops_per_s), color=light("ink"), linewidth=1.2
    )
    peak = f"{units.quantity(roof.flops_per_s)}FLOP/s"
    axes.annotate(peak, (high, roof.flops_per_s), ha="right", va="bottom", fontsize=8)
    if math.isfinite(roof.bytes_per_s) and roof.ridge > low:
        middle = math.sqrt(low * roof.ridge)
        axes.annotate(
            f"{units.quantity(roof.bytes_per_s)}B/s", (middle, middle * roof.bytes_per_s),
            xytext=(-6, 4), textcoords="offset points", ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
    floor = min([s.flops_per_s for s in points] + [float(min(low * roof.bytes_per_s, 1e99))])
    floor = min(floor, roof.flops_per_s / 10.0) / 2.0
    axes.set(xlim=(low, high), ylim=(floor, roof.flops_per_s * 2.0))
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="FLOP/s")
    said = []
    if any(s.flops_per_s > 1.001 * s.intensity * roof.bytes_per_s for s in points):
        said.append("above the slope: held by a cache, not read from memory")
    if left > 0.005 * whole_s:
        said.append(f"without arithmetic, not shown: {units.percent(left / whole_s)} of the time")
    axes.annotate("\n".join(said), (0.99, 0.02), xycoords="axes fraction", ha="right", fontsize=8)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([40.0])
