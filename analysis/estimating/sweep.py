"""What a training step costs over a range of densities: `nettime estimate --sweep`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.estimating.pricing import Setting, narrower_dense, price, told
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.estimating.breakdown import Breakdown, PricedPart
    from analysis.estimating.subject import Subject
    from hwsim import Device

# A sweep "low:high" without a count is priced at this many densities, equal ratios apart.
SWEEP_POINTS = 8


def densities(text: str) -> list[float]:
    """Of `low:high`, `low:high:count` or `a,b,c`."""
    wrong = InputError(
        f"--sweep: value is {text!r}; allowed is low:high, low:high:count or a list a,b,c of "
        "densities in (0, 1]"
    )
    try:
        if ":" in text:
            low, high, *rest = text.split(":")
            ends = float(low), float(high)
            count = int(rest[0]) if rest else SWEEP_POINTS
            if len(rest) > 1 or count < 2 or not 0 < ends[0] < ends[1] <= 1:
                raise wrong
            step = math.log(ends[1] / ends[0]) / (count - 1)
            return [*(ends[0] * math.exp(i * step) for i in range(count - 1)), ends[1]]
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise wrong from None
    if not all(0 < value <= 1 for value in values):
        raise wrong
    return values


def show(
    what: Subject, devices: Sequence[Device], densities: Sequence[float], setting: Setting,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Prices a training step at each density; a table or JSON, and a figure at `plot`."""
    from analysis.display.console import print_json, progress_bar

    points: list[list[Breakdown]] = []
    narrower: list[dict[str, PricedPart]] = []
    with progress_bar(f"sweeping {what.name}", len(densities)) as update:
        for done, density in enumerate(densities):
            parts, sparse = price(what, devices, density, setting)
            points.append(parts)
            narrower.append(narrower_dense(what, devices, sparse))
            update(done + 1, f"density {density:.3g}")
    drawn = None
    if plot is not None:
        drawn = _plot(what, densities, points, narrower, told(what, setting), plot)
    if as_json:
        return print_json({
            "command": "estimate",
            "model": what.name,
            "setting": setting.described("density"),
            "priced": what.priced,
            "plot": drawn,
            "sweep": [
                {
                    "density": density,
                    "devices": {
                        b.device: {
                            "dense_s": b.total.dense.seconds, "sparse_s": b.total.sparse.seconds,
                            "low_s": b.total.sparse.low_s, "high_s": b.total.sparse.high_s,
                            "speed_up": b.total.speed_up, "amdahl_speed_up": b.amdahl(density),
                            "bound": b.total.sparse.bound, "verified": b.total.sparse.verified,
                            "narrower_dense": _narrower_json(models, b.device),
                        }
                        for b in parts
                    },
                }
                for density, parts, models in zip(densities, points, narrower, strict=True)
            ],
        })  # fmt: skip
    return _print_sweep(what, devices, densities, points, narrower, told(what, setting), drawn)


def _narrower_json(models: dict[str, PricedPart], device: str) -> dict[str, Any] | None:
    one = models.get(device)
    return None if one is None else {"model": one.label, "seconds": one.sparse.seconds}


def _plot(
    what: Subject, densities: Sequence[float], points: list[list[Breakdown]],
    narrower: list[dict[str, PricedPart]], priced: str, path: Path,
) -> Path:  # fmt: skip
    from analysis.reporting import plots

    names = [b.device for b in points[0]]
    gains = {n: [parts[i].total.speed_up for parts in points] for i, n in enumerate(names)}
    bounds = {
        n: [parts[i].amdahl(d) for d, parts in zip(densities, points, strict=True)]
        for i, n in enumerate(names)
    }
    others = {n: [one[n].speed_up for one in narrower] for n in names} if narrower[0] else {}
    with plots.styled():
        title = f"Training step of {what.name}: speed-up"
        figure = plots.sweep(densities, gains, bounds, title, others, priced)
        plots.save(figure, path)
    return path.absolute()


def _print_sweep(
    what: Subject, devices: Sequence[Device], densities: Sequence[float],
    points: list[list[Breakdown]], narrower: list[dict[str, PricedPart]], priced: str,
    drawn: Path | None,
) -> None:  # fmt: skip
    from analysis.display import tables
    from analysis.display.console import stdout
    from hwsim import units

    console = stdout()
    console.print(f"{what.name}: {priced}")
    columns = ["density"]
    for device in devices:
        columns += [f"{device.name}", "gain", "limit"]
    rows = []
    for density, parts in zip(densities, points, strict=True):
        row = [units.percent(density)]
        for b in parts:
            row += [
                units.seconds(b.total.sparse.seconds), units.ratio(b.total.speed_up),
                units.ratio(b.amdahl(density)),
            ]  # fmt: skip
        rows.append(row)
    console.print(tables.table(f"{what.name}: one sparse training step", columns, rows))
    for b in points[0]:
        console.print(
            f"Dense on {b.device}: {units.seconds(b.total.dense.seconds)}; "
            f"{units.percent(1 - b.maskable)} of it is not maskable."
        )
    console.print(
        "gain: dense time over sparse time. limit: the gain if masked ops took exactly their "
        "density of the dense time (Amdahl)."
    )
    for b in points[0] if narrower[0] else ():
        gains = [
            f"{units.ratio(one[b.device].sparse.seconds / at.total.sparse.seconds)} at "
            f"{units.percent(d)}"
            for d, one, parts in zip(densities, narrower, points, strict=True)
            for at in parts
            if at.device == b.device
        ]
        console.print(f"Over the narrower dense of equal FLOPs on {b.device}: {', '.join(gains)}.")
    if not narrower[0]:
        console.print(f"No narrower dense model: {what.no_width}.")
    if any(tables.any_unverified(parts) for parts in points):
        console.print(tables.UNVERIFIED_NOTE.removeprefix("* ").capitalize() + ": parts of these.")
    losing = [
        f"{units.percent(d)} on {b.device}"
        for d, parts in zip(densities, points, strict=True)
        for b in parts
        if b.total.speed_up < 1
    ]
    if losing:
        console.print("Sparse is slower than dense at " + ", ".join(losing) + ".", style="bold")
    if drawn is not None:
        console.print(f"figure: {drawn}", soft_wrap=True)
