"""`nettime train`: one training run, resumable, and its net time on each device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.reporting.contenders import ReportedRun
    from sparse_train.record import TrainingRecord


def register(app: typer.Typer) -> None:
    """Adds `nettime train`."""
    app.command(
        "train",
        short_help="Train a network, dense or sparse, and price the run.",
        epilog=options.examples(
            "nettime train --algorithm rigl --density 0.1 --run runs/rigl",
            "nettime train --algorithm rigl --density 0.1 --compute sparse --run runs/real",
            "nettime train --steps 2000 --learning-rate 0.001 --run runs/dense",
            "nettime train --text my_folder --set warmup_steps=50 --run runs/mine",
            "nettime train --algorithm set --density 0.2 --run runs/set --json",
        ),
    )(train)


def train(
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; made, or gone on with.")],
    algorithm: Annotated[
        str, typer.Option(help="dense, static, set, rigl and more: a wrong name lists all.")
    ] = "dense",
    density: Annotated[
        float | None, typer.Option(help="Active share of the masked weights; default 0.1.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="1 − density; give one of the two.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="What masks look like.")] = None,
    distribution: Annotated[
        str, typer.Option(help="How layers share the weights: uniform, er or erk.")
    ] = "erk",
    task: Annotated[str, typer.Option(help="What is learnt; a wrong name lists all.")] = "mlm",
    model: Annotated[
        str | None, typer.Option(help="Kind of network; default: the task's own.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size of the model: tiny, mini, small…; default: the task's.")
    ] = None,
    compute: Annotated[
        str, typer.Option(help="masked, or sparse: masked linear layers on sparse CPU kernels.")
    ] = "masked",
    text: Annotated[
        str | None, typer.Option(help="A text file or folder; default: Python's own library.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Sequences per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of weights, batches and masks.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as name=value; repeatable."),
    ] = None,
    device: options.Devices = None,
    as_json: options.Json = False,
) -> None:
    """Trains one network and says what the run would cost on each device.

    The run folder keeps settings, metrics, masks and weights. Give the same command again to go on
    after an interruption: the result is the same to the bit.
    """
    devices = options.load_devices(device)
    content: dict[str, Any] = {
        "algorithm": algorithm, "density": _density(algorithm, density, sparsity),
        "pattern": pattern, "distribution": distribution, "steps": steps, "task": task,
        "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed,
        "task_options": {} if text is None else {"text": text}, "compute": compute,
    }  # fmt: skip
    content |= {k: v for k, v in (("model", model), ("preset", preset)) if v is not None}
    config = options.config(content, settings or [])
    from analysis.display.console import print_json, progress_bar, resumable, stdout
    from analysis.reporting.runs import contender
    from sparse_train.trainer import train as go

    with (
        resumable(f"the same command goes on from the last checkpoint in {run}"),
        progress_bar("training", config.steps) as update,
    ):
        record = go(config, run, progress=lambda p: update(p.step, f"loss {p.loss:.3f}"))
        found = contender(run, devices)
    if as_json:
        return print_json({
            "command": "train", "run": run.absolute(), "compute": record.compute,
            **_described(found), "last_validation": _last(record),
        })  # fmt: skip
    return _print(stdout(), found, record, run)


def _density(algorithm: str, density: float | None, sparsity: float | None) -> float:
    if density is not None and sparsity is not None:
        raise InputError("--density and --sparsity: both are given; allowed is one of them")
    if algorithm == "dense" and density is None and sparsity is None:
        return 1.0
    if sparsity is not None:
        return 1.0 - options.share("--sparsity", sparsity)
    return options.share("--density", 0.1 if density is None else density)


def _described(found: ReportedRun) -> dict[str, Any]:
    return {
        "name": found.name, "density": found.density, "steps": int(found.steps[-1]),
        "best_validation_loss": found.best_loss, "last_validation_loss": found.last_loss,
        "devices": {
            name: {
                "net_time_s": t.expected[-1], "low_s": t.low[-1], "high_s": t.high[-1],
                "verified": found.verified[name],
            }
            for name, t in found.seconds.items()
        },
        "evaluations": [
            {"step": int(step), "loss": float(loss)}
            for step, loss in zip(found.steps, found.losses, strict=True)
        ],
    }  # fmt: skip


def _last(record: TrainingRecord) -> dict[str, float]:
    """The task's metrics of the last validation."""
    row = record.evaluations.row(-1, named=True)
    return {name: value for name, value in row.items() if name != "step"}


def _kernels(compute: dict[str, Any]) -> str:
    """Which masked layers used the sparse kernels, and why the others did not."""
    reasons: dict[str, list[str]] = {}
    for name, why in compute["dense"].items():
        reasons.setdefault(why, []).append(name)
    masked = len(compute["sparse"]) + len(compute["dense"])
    text = f"sparse kernels: {len(compute['sparse'])} of {masked} masked layers"
    for why, names in reasons.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text += f"; {names[0]}{others} dense: {why}"
    return text


def _print(console: Any, found: ReportedRun, record: TrainingRecord, run: Path) -> None:
    from analysis.display import tables
    from hwsim import units

    facts, steps = dict(found.facts), record.steps
    if record.compute:
        console.print(_kernels(record.compute), soft_wrap=True)
    console.print(
        f"{found.name}: {steps} steps, validation loss {found.last_loss:.3f} "
        f"(best {found.best_loss:.3f}), trained here in {facts['trained here in']}."
    )
    others = [f"{name} {value:.4g}" for name, value in _last(record).items() if name != "loss"]
    if others:
        console.print(f"Validation after the last step: {', '.join(others)}.")
    rows = [
        (
            name + ("" if found.verified[name] else tables.UNVERIFIED),
            units.seconds(t.expected[-1]), units.interval(t.low[-1], t.high[-1]),
            units.seconds(t.expected[-1] / steps),
        )
        for name, t in found.seconds.items()
    ]  # fmt: skip
    console.print(
        tables.table("net training time", ("device", "whole run", "interval", "a step"), rows)
    )
    if not all(found.verified.values()):
        console.print(tables.UNVERIFIED_NOTE)
    console.print(f"run: {run.absolute()}", soft_wrap=True)
