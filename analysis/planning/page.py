"""A plan for people: on a terminal, as Markdown, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.planning.law import FORMS, Law
from analysis.planning.plan import Best, Candidate, Front
from hwsim import units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# "beyond": in what the law is asked beyond the points that it was fitted to.
COLUMNS = ("", "net time", "steps", "loss", "interval", "beyond")
_SHOWN = 8


def rows(law: Law, best: Best) -> list[list[str]]:
    """The best candidates of a device, the best dense one among them."""
    shown = list(best.candidates[:_SHOWN])
    dense = next((c for c in best.candidates if c.density == 1), None)
    if dense is not None and dense not in shown:
        shown.append(dense)
    return [_row(law, best, one) for one in shown]


def _row(law: Law, best: Best, one: Candidate) -> list[str]:
    seconds, loss = best.seconds[one.name], best.losses[one.name]
    return [
        one.name, units.seconds(seconds), f"{seconds / one.step_s:.3g}",
        f"{loss.point:.3f}", f"{loss.low:.2f}–{loss.high:.2f}",
        ", ".join(law.beyond(one.point(seconds))) or "–",
    ]  # fmt: skip


def notes(law: Law, given: Sequence[Candidate]) -> list[str]:
    """Which law, how good, where it was fitted, and what is assumed."""
    parts = ", ".join(f"{name} {value:.4g}" for name, value in law.coefficients.items())
    ends = "; ".join(f"{n} {low:.3g} to {high:.3g}" for n, (low, high) in law.range.items())
    schedule = given[0].schedule
    noise = "" if law.noise is None else (
        f" Runs that differ by the seed alone are off their mean by {100 * law.noise:.2f} %: no "
        "law can be nearer to single runs."
    )  # fmt: skip
    return [
        f"Law: {FORMS[law.form]}; {parts}; N in {law.n_unit:g} weights of the layers that masks "
        f"act on, D in {law.d_unit:g} {law.counted}. {law.source}.",
        f"Fitted to {ends}; off by {100 * law.error:.2f} % on its points, on average."
        + noise,
        "Intervals: " + ("95 %, of refits on points drawn with replacement." if law.draws else
                         "that error either way; for two candidates beside each other, what N "
                         "adds to the loss may be off by three times as much (assumed)."),
        "Masks: random ones stand for those that would be learnt. "
        + ("Dense for a quarter of the steps, pruned along a cubic to three quarters, then at the "
           "density named; each part at its own price." if schedule == "gradual" else
           "At the density named from the first step to the last."),
    ]  # fmt: skip


def figure(fronts: dict[str, Front]) -> Figure:
    """Loss against net time, a panel a device: dense sizes grey, sparse ones in colour."""
    import matplotlib.pyplot as plt

    from analysis.reporting import plots

    drawn, axes = plt.subplots(
        1, len(fronts), figsize=(plots.WIDTH_IN, 3.6), sharey=True, squeeze=False, num=None
    )
    for axis, (device, front) in zip(axes[0], fronts.items(), strict=True):
        winners = {name for _, name in front.pareto}
        for c in front.candidates:
            dense, first = c.density == 1, c.name in winners
            colour = plots.FAMILY_COLOURS["dense" if dense else "rigl"]
            axis.plot(
                front.seconds, front.losses[c.name], color=plots.light(colour),
                linewidth=1.8 if first else 0.6, alpha=1.0 if first else 0.35,
                linestyle="--" if dense else "-",
                label=("dense" if dense else "sparse") if first else None,
            )  # fmt: skip
        axis.axvline(front.around_s, linewidth=0.6, linestyle=":", color="0.5")
        axis.set(xscale="log", xlabel="net training time", title=device)
        plots.time_ticks(axis.xaxis)
        handles, labels = axis.get_legend_handles_labels()
        kept = dict(zip(labels, handles, strict=True))
        axis.legend(kept.values(), kept.keys())
    low = min(min(map(min, f.losses.values())) for f in fronts.values())
    high = max(sorted(x[len(x) // 3] for x in f.losses.values())[0] for f in fronts.values())
    axes[0][0].set(ylabel="final loss by the law", ylim=(low * 0.99, high * 1.15))
    plt.close(drawn)
    return drawn


def pareto_lines(front: Front) -> list[str]:
    """From which net time on which candidate has the lowest loss."""
    return [f"from {units.seconds(seconds)} on: {name}" for seconds, name in front.pareto]


def to_json(law: Law, answers: Sequence[Best], fronts: dict[str, Front]) -> dict[str, Any]:
    """Everything, numbers unrounded."""
    return {
        "law": law.to_json(),
        "devices": [
            {
                "device": best.device, "winner": best.winner.name, "sentence": best.sentence,
                "forecast": None if best.forecast is None else {
                    "one": best.forecast.one, "other": best.forecast.other,
                    "speed_up": best.forecast.speed_up.point, "low": best.forecast.speed_up.low,
                    "high": _finite(best.forecast.speed_up.high),
                    "verdict": str(best.forecast.verdict),
                },
                "candidates": [
                    {
                        "name": c.name, "density": c.density, "step_s": c.step_s,
                        "seconds": best.seconds[c.name], "loss": best.losses[c.name].point,
                        "low": best.losses[c.name].low, "high": best.losses[c.name].high,
                        "beyond": law.beyond(c.point(best.seconds[c.name])),
                    }
                    for c in best.candidates
                ],
                "pareto": [{"from_s": s, "name": n} for s, n in fronts[best.device].pareto],
            }
            for best in answers
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
