"""Figures: few colours that the colour-blind can tell apart, the same one for a contender always.

Colours are Okabe and Ito's (2008, "Color Universal Design"). In a report they become CSS variables,
so that one picture serves a light and a dark page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.reporting.contenders import FAMILIES, ReportedRun, devices_of
from hwsim import InputError
from hwsim.files import replacing
from hwsim.units import unit_of
from hwsim.workload import PHASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = (".svg", ".png", ".pdf")  # endings of what `save` writes
# name → (on a light page, on a dark page)
COLOURS = {
    "ink": ("#1b1f24", "#e6e8ea"),
    "grid": ("#d9dce0", "#3a3f45"),
    "orange": ("#d98200", "#f0a830"),
    "sky": ("#3f9fd6", "#6fc3f2"),
    "green": ("#00875f", "#2fc79a"),
    "vermilion": ("#c94f00", "#ff8a4a"),
    "purple": ("#a8568a", "#dd8fc0"),
}
FAMILY_COLOURS = dict(
    zip(FAMILIES, ("ink", "orange", "sky", "green", "vermilion", "purple"), strict=True)
)
PHASE_COLOURS = dict(zip(PHASES, ("sky", "green", "orange", "purple"), strict=True))
DEVICE_COLOURS = ("vermilion", "sky", "green", "orange", "purple", "ink")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
WIDTH_IN = 9.0


def light(name: str) -> str:
    """A colour by its name, for pages that are light."""
    return COLOURS[name][0]


def styled() -> Any:
    """The matplotlib settings of every figure here, as a context."""
    import matplotlib

    matplotlib.use("agg", force=False)
    ink, grid = light("ink"), light("grid")
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none", "svg.hashsalt": "nettime", "font.family": "DejaVu Sans",
            "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
            "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink,
            "xtick.color": ink, "ytick.color": ink, "axes.grid": True, "grid.color": grid,
            "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False,
            "axes.spines.right": False, "legend.frameon": False, "figure.facecolor": "none",
            "axes.facecolor": "none", "lines.linewidth": 1.6, "figure.constrained_layout.use": True,
        }
    )  # fmt: skip


def line_styles(contenders: Sequence[ReportedRun]) -> dict[str, tuple[str, Any]]:
    """Name → (colour, dash): colour by family, dash by place among its family."""
    seen: dict[str, int] = {}
    styles = {}
    for c in contenders:
        family = c.family if c.family in FAMILY_COLOURS else "other"
        place = seen[family] = seen.get(family, -1) + 1
        styles[c.name] = (light(FAMILY_COLOURS[family]), DASHES[place % len(DASHES)])
    return styles


def loss_by_steps(contenders: Sequence[ReportedRun]) -> Figure:
    """Validation loss against training steps."""
    figure, (axes,) = _figure(1, 3.4)
    for c in contenders:
        _curve(axes, c, c.steps, contenders)
    axes.set(title="Validation loss against training steps", xlabel="training steps")
    axes.set_ylabel("validation loss (nats per token)")
    _without_the_start(axes, contenders)
    _legend_right(figure, axes)
    return figure


def loss_by_time(contenders: Sequence[ReportedRun]) -> Figure:
    """Validation loss against net training time, one panel per device."""
    devices = devices_of(contenders)
    columns = min(2, len(devices))
    figure, panels = _figure(len(devices), 3.2, columns)
    for axes, device in zip(panels, devices, strict=False):
        longest = max(float(c.seconds[device].expected[-1]) for c in contenders)
        scale, unit = unit_of(longest)
        for c in contenders:
            _curve(axes, c, c.seconds[device].expected / scale, contenders)
        title = f"on {device}"
        axes.set(title=title, xlabel=f"net training time ({unit})")
        _without_the_start(axes, contenders)
    for axes in panels[::columns]:
        axes.set_ylabel("validation loss (nats per token)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def densities(contenders: Sequence[ReportedRun]) -> Figure | None:
    """Density of every layer over the run, a panel per sparse contender; None without any."""
    sparse = [c for c in contenders if c.densities]
    if not sparse:
        return None
    names = list(dict.fromkeys(name for c in sparse for name in c.densities))
    columns = min(3, len(sparse))
    rows = -(-len(sparse) // columns)
    figure, panels = _figure(len(sparse), max(1.6, 0.17 * len(names) + 0.7), columns)
    # A scale up to the densest layer there is: at 10 % differences would drown in one up to 1.
    densest = max(float(np.max(values)) for c in sparse for values in c.densities.values())
    image = None
    for place, (axes, c) in enumerate(zip(panels, sparse, strict=False)):
        steps, grid = _density_grid(c, names)
        image = axes.pcolormesh(
            steps,
            np.arange(len(names) + 1),
            grid,
            cmap="cividis",
            vmin=0,
            vmax=densest,
            rasterized=True,
        )
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title(c.name)
        labels = names if place % columns == 0 else []
        axes.set_yticks(np.arange(len(names)) + 0.5 if labels else [], labels, fontsize=7)
        if place // columns == rows - 1 or place + columns >= len(sparse):
            axes.set_xlabel("training steps")
    bar = figure.colorbar(image, ax=list(panels[: len(sparse)]), aspect=30, pad=0.01)
    bar.set_label("density of the layer")
    return figure


def steps_by_phase(contenders: Sequence[ReportedRun]) -> Figure:
    """What one training step costs, by phase: a bar per contender, a panel per device."""
    devices = [d for d in devices_of(contenders) if all(d in c.layers for c in contenders)]
    columns = min(2, len(devices))
    figure, panels = _figure(len(devices), 0.26 * len(contenders) + 1.0, columns)
    names = [c.name for c in contenders]
    for place, (axes, device) in enumerate(zip(panels, devices, strict=False)):
        sums = [_by_phase(c.layers[device]) for c in contenders]
        _stacked(axes, names if place % columns == 0 else None, sums)
        axes.set_title(f"on {device}")
    _phase_legend(figure, panels[0])
    return figure


def steps_by_layer(one: ReportedRun, other: ReportedRun, device: str, most: int = 24) -> Figure:
    """Layer by layer, what a step of two contenders costs on a device: two panels, one scale."""
    costs = one.layers[device]
    ranked = sorted(costs, key=lambda name: -sum(costs[name].values()))
    kept = [name for name in costs if name in set(ranked[:most])]
    figure, panels = _figure(2, 0.19 * len(kept) + 1.2, 2, sharex=True)
    for place, (axes, c) in enumerate(zip(panels, (one, other), strict=True)):
        sums = [c.layers[device].get(name, {}) for name in kept]
        _stacked(axes, kept if place == 0 else None, sums, fontsize=7)
        axes.set_title(f"{c.name}, on {device}")
    _phase_legend(figure, panels[0])
    return figure


def sweep(
    densities: Sequence[float],
    speed_ups: Mapping[str, Sequence[float]],
    bounds: Mapping[str, Sequence[float]],
    title: str,
    narrower: Mapping[str, Sequence[float]] | None = None,
    priced: str = "",
) -> Figure:
    """Speed-up against density: a line per device, and dotted what Amdahl's law allows it.

    Args:
        narrower: speed-ups of the narrower dense models of equal FLOPs, dashed.
        priced: what the step is of, for the foot of the figure.
    """
    narrower = narrower or {}
    figure, (axes,) = _figure(1, 3.8)
    for place, (device, values) in enumerate(speed_ups.items()):
        colour = light(DEVICE_COLOURS[place % len(DEVICE_COLOURS)])
        axes.plot(densities, values, marker="o", markersize=4, color=colour, label=device)
        axes.plot(
            densities, bounds[device], color=colour, linestyle=":", linewidth=1.2,
            label=f"{device}: Amdahl's limit",
        )  # fmt: skip
        if device in narrower:
            axes.plot(
                densities, narrower[device], color=colour, linestyle="--", linewidth=1.2,
                marker="x", markersize=4, label=f"{device}: narrower dense of equal FLOPs",
            )  # fmt: skip
    axes.axhline(1.0, color=light("ink"), linewidth=0.8)
    axes.annotate(
        "as fast as dense", (0.01, 1.0), xycoords=("axes fraction", "data"), fontsize=8,
        ha="left", va="bottom",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis, densities)
    drawn = (*speed_ups.values(), *bounds.values(), *narrower.values())
    both = [v for part in drawn for v in part]
    _plain_ticks(axes.yaxis, [min(1.0, *both), *both])
    axes.set(title=title, xlabel="density (share of the masked weights that is active)")
    axes.set_ylabel("speed-up of a training step (×)")
    figure.supxlabel(priced, fontsize=8)
    _legend_right(figure, axes)
    return figure


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values of a logarithmic axis, well apart.

    >>> round_ticks(0.2, 0.6, 3)
    [0.2, 0.5]
    """
    if not 0 < low < high < math.inf:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        # Powers of ten from text, so that 0.3 is not 0.30000000000000004.
        values = [float(f"{step}e{power}") for power in decades for step in steps]
        found = [v for v in values if low <= v <= high]
        if len(found) > 1:
            break
    gap = (high / low) ** (1 / most)
    kept: list[float] = []
    for value in found:
        if not kept or value >= kept[-1] * gap:
            kept.append(value)
    return kept[:most]


def time_ticks(axis: Any) -> None:
    """Few round times with their units, for a logarithmic axis in seconds."""
    from matplotlib.ticker import FuncFormatter, Locator, NullFormatter, NullLocator

    from hwsim import units

    class Few(Locator):
        """As many as there is room for; of the roundest values of which two are in sight."""

        def __call__(self) -> list[float]:
            return self.tick_values(*axis.get_view_interval())

        def tick_values(self, vmin: float, vmax: float) -> list[float]:
            inches = axis.axes.bbox.width / axis.axes.figure.dpi
            return round_ticks(vmin, vmax, max(2, int(inches / 0.55)))

    axis.set_major_locator(Few())
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: units.seconds(seconds)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> None:
    """Writes a figure for use elsewhere; the format is the suffix: .svg, .png or .pdf."""
    if path.suffix not in FIGURES:
        raise InputError(f"plot file: value is {str(path)!r}; allowed is a .svg, .png or .pdf name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        figure.savefig(
            part, format=path.suffix[1:], dpi=160, facecolor="white", bbox_inches="tight"
        )


def inline_svg(figure: Figure) -> str:
    """The figure as an <svg> element for a page: no URL in it, colours as CSS variables."""
    text = io.StringIO()
    figure.savefig(
        text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # HTML gives an inline svg its namespaces by itself.
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    )
    for name, (on_light, _) in COLOURS.items():
        svg = re.sub(re.escape(on_light), f"var(--{name})", svg, flags=re.IGNORECASE)
    return svg


def _figure(count: int, row_height_in: float, columns: int = 1, **shared: Any) -> Any:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH_IN, rows * row_height_in + 0.4))
    panels = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels


def _curve(axes: Any, c: ReportedRun, x: np.ndarray, contenders: Sequence[ReportedRun]) -> None:
    colour, dash = line_styles(contenders)[c.name]
    losses = np.where(np.isfinite(c.losses), c.losses, np.nan)
    axes.plot(x, losses, color=colour, linestyle=dash, label=c.name)


def _without_the_start(axes: Any, contenders: Sequence[ReportedRun]) -> None:
    """Cuts off the fall from chance, beside which what is compared would be flat."""
    low = min(c.best_loss for c in contenders)
    early = [float(c.losses[min(2, len(c.losses) - 1)]) for c in contenders]
    high = max((loss for loss in early if np.isfinite(loss)), default=low)
    if np.isfinite(low) and high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _legend_right(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")


def _phase_legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _stacked(
    axes: Any, names: Sequence[str] | None, sums: Sequence[dict[str, float]], fontsize: float = 8
) -> None:
    """Horizontal bars, the first on top, stacked by phase."""
    scale, unit = unit_of(max(sum(s.values()) for s in sums))
    places = np.arange(len(sums))
    left = np.zeros(len(sums))
    for phase in PHASES:
        widths = np.array([s.get(phase, 0.0) for s in sums]) / scale
        axes.barh(
            places, widths, left=left, height=0.72, color=light(PHASE_COLOURS[phase]),
            label=phase.replace("_", " "),
        )  # fmt: skip
        left += widths
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_yticks(places if names else [], names or [], fontsize=fontsize)
    axes.set_xlabel(f"one training step ({unit})")


def _by_phase(layers: dict[str, dict[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for phases in layers.values():
        for phase, seconds in phases.items():
            sums[phase] = sums.get(phase, 0.0) + seconds
    return sums


def _density_grid(c: ReportedRun, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Edges in steps, (changes + 1,), and densities (layers, changes); NaN where a layer has none.

    A mask holds until the next one; the last until the end of the run.
    """
    end = max(float(c.steps[-1]), float(c.density_steps[-1]) + 1)
    edges = np.append(c.density_steps.astype(float), end)
    missing = np.full(len(c.density_steps), np.nan)
    return edges, np.array([c.densities.get(name, missing) for name in names])


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """1-2-5 ticks with plain numbers on a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    low, high = min(values), max(values)
    ticks = [
        m * 10.0**e
        for e in range(-4, 5)
        for m in (1, 2, 5)
        if low * 0.99 <= m * 10.0**e <= high * 1.01
    ]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
