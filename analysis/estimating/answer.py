"""What `nettime estimate` answers for one density: tables, sentences, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.estimating.pricing import Setting, narrower_dense, price, told

if TYPE_CHECKING:
    from analysis.estimating.breakdown import Breakdown, PricedPart
    from analysis.estimating.subject import Subject
    from hwsim import Device
    from hwsim.answers.gpu_choice import LayerChoice


def show(
    what: Subject, devices: Sequence[Device], density: float, setting: Setting, by: str,
    as_json: bool, top: int, plot: Path | None, trace: Path | None,
    moment_bytes: float,
) -> None:  # fmt: skip
    """Prices a step on each device and prints what is to be said of it.

    Args:
        by: phase, kind or layer.
        top: so many layers at most in a table; 0 for all.
        plot: where the roofline goes.
        trace: where the timeline goes.
        moment_bytes: of the optimizer's state, a weight.
    """
    from analysis.display.console import print_json, progress_bar, stdout
    from analysis.estimating import capacity, intensity, layer_answers
    from analysis.estimating.breakdown import as_json as breakdown_json
    from analysis.estimating.breakdown import coverage, estimate_json, verdict
    from hwsim.cpu.machine import whose_price

    with progress_bar(f"pricing {what.name}", len(devices)) as update:
        breakdowns, sparse = price(what, devices, density, setting, by, update)
    if trace is not None:
        from hwsim.answers.trace import write_step

        write_step(trace, devices, sparse)
    chosen = layer_answers.answers(devices, what.step, sparse)
    covered = coverage(what.step, sparse.masks, what.weights)
    narrower = narrower_dense(what, devices, sparse)
    sentence = verdict(breakdowns, covered.density)
    notes = {d.name: line for d in devices if (line := whose_price(d))}
    drawn = None
    if plot is not None:
        from analysis.reporting import roofline_plot

        drawn = roofline_plot.draw(what.name, devices, sparse, plot, told(what, setting))
    roofs = {d.name: intensity.roof_of(d, what.step) for d in devices} if by == "layer" else {}
    too_much = capacity.lines(sparse, devices, moment_bytes)
    if as_json:
        return print_json({
            "command": "estimate",
            "model": what.name,
            "setting": setting.described(by),
            "density": covered.density,
            "priced": what.priced,
            "coverage": {
                "layers": covered.layers, "weights": covered.weights,
                "maskable_weights": covered.maskable, "active_weights": covered.active,
                "share_of_weights": covered.share, "share_of_dense_flops": covered.flops,
            },
            "devices": [
                {**breakdown_json(b),
                 "narrower_dense": estimate_json(narrower[b.device].sparse) if narrower else None,
                 "layers": layer_answers.as_json(chosen.get(b.device, ())),
                 "roofline": intensity.as_json(b, roofs[b.device]) if roofs else None}
                for b in breakdowns
            ],
            "narrower_dense": next(iter(narrower.values())).label if narrower else None,
            "verdict": sentence,
            "note": what.note,
            "measured_on": notes,
            "plot": drawn,
            "memory": {**capacity.as_json(sparse, devices), "lines": list(too_much.values())},
        })  # fmt: skip
    texts = [*notes.values(), *too_much.values()]
    _print(what, breakdowns, covered, narrower, sentence, setting, by != "layer", top, texts)
    for b in breakdowns if roofs else ():
        stdout().print(intensity.table_of(b, roofs[b.device], top))
    _print_answers(chosen)
    if drawn is not None:
        stdout().print(f"figure: {drawn}", soft_wrap=True)
    return None


def _print_answers(chosen: Mapping[str, Sequence[LayerChoice]]) -> None:
    """On GPUs: dense or 2:4, per group of layers, and why."""
    from rich.padding import Padding

    from analysis.display.console import stdout
    from analysis.estimating import layer_answers

    for device, choices in chosen.items():
        stdout().print(f"{device}: dense or 2:4, per layer", style="bold")
        for heading, reasons in layer_answers.paragraphs(choices):
            stdout().print(heading)
            for reason in reasons:
                stdout().print(Padding(reason, (0, 0, 0, 4)))
        stdout().print(layer_answers.summary(device, choices), style="bold")


def _print(
    what: Subject, breakdowns: Sequence[Breakdown], covered: Any, narrower: dict[str, PricedPart],
    sentence: str, setting: Setting, wide: bool, top: int, notes: Sequence[str],
) -> None:  # fmt: skip
    from analysis.display import tables
    from analysis.display.console import stdout
    from hwsim import units

    console = stdout()
    console.print(
        f"{what.name}: {units.quantity(covered.weights)} weights, "
        f"{units.percent(covered.share)} of them in {covered.layers} maskable layers, which hold "
        f"{units.percent(covered.flops)} of the FLOPs. {told(what, setting)} "
        f"Density {units.percent(covered.density)} ({setting.pattern}, {setting.distribution}), "
        f"{_updates(setting)}."
    )
    for b in breakdowns:
        extra = [narrower[b.device]] if narrower else []
        console.print(tables.breakdown_table(b, top=top, extra=extra, intervals=wide))
    if tables.any_unverified(breakdowns):
        console.print(tables.UNVERIFIED_NOTE)
    console.print(sentence, style="bold")
    for note in (*([what.note] if what.note else []), *notes):
        console.print(note, style="bold", soft_wrap=note in notes)
    for b in breakdowns:
        if b.device in narrower:
            console.print(_against_narrower(b, narrower[b.device]))
    if not narrower:
        console.print(f"No narrower dense model: {what.no_width}.")


def _updates(setting: Setting) -> str:
    if not setting.update_interval:
        return "masks that stay as they are"
    return f"{setting.algorithm} updating its masks every {setting.update_interval} steps"


def _against_narrower(b: Breakdown, row: PricedPart) -> str:
    """What a narrower dense model of the same arithmetic makes of the same device."""
    from analysis.estimating.breakdown import how_much, speed_up

    gain = speed_up(row.sparse.seconds, b.total.sparse.seconds)
    words = how_much(gain)
    than = f"{words} as" if words == "as fast" else f"{words} than"
    return f"On {b.device} the sparse step is {than} the narrower dense one of equal FLOPs."
