"""`nettime wide`: what training a very wide sparse layer really takes."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands import options


def register(app: typer.Typer) -> None:
    """Adds `nettime wide`."""
    app.command(
        "wide",
        short_help="Train a condensed layer of 100,000 outputs and measure its peak memory.",
        epilog=options.examples(
            "nettime wide",
            "nettime wide --outputs 670000 --width 512 --density 0.125 --steps 4",
        ),
    )(wide)


def wide(
    outputs: Annotated[int, typer.Option(help="Of the wide layer.")] = 100_000,
    width: Annotated[int, typer.Option(help="Inputs of the wide layer.")] = 512,
    density: Annotated[float, typer.Option(help="Active share of its weights.")] = 0.125,
    algorithm: Annotated[str, typer.Option(help="srigl, or with fan-in: static, set.")] = "srigl",
    steps: Annotated[int, typer.Option(help="Training steps, every other with an update.")] = 6,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 32,
    as_json: options.Json = False,
) -> None:
    """Trains on a generated set in a process of its own and compares its peak with what it needs.

    Need: all weights with two moments each, and the indices of the sparse ones. The peak also has
    gradients, activations, mask updates, evaluation and checkpoints in it.
    """
    from analysis.display.console import print_json, progress_bar, stdout
    from sparse_train.runs.config import TrainConfig
    from sparse_train.runs.peak_memory import measure

    options.at_least("--outputs", outputs, 2)
    options.at_least("--width", width)
    options.at_least("--steps", steps)
    options.share("--density", density)
    config = TrainConfig(
        task="extreme", algorithm=algorithm, pattern="fan_in", density=density, steps=steps,
        batch_size=batch_size, update_interval=2, end_step=steps, checkpoint_interval=2,
        eval_interval=steps, threads=1, model_options={"width": width},
        task_options={
            "data": "planted", "outputs": outputs, "inputs": 2000, "examples": 5000,
            "evaluation_examples": 64,
        },
    )  # fmt: skip
    with progress_bar(f"training {steps} steps in a process of its own", 1):
        found = measure(config)
    if as_json:
        from dataclasses import asdict

        return print_json({"command": "wide", **asdict(found), "ratio": found.ratio})
    mb = 1e6
    return stdout().print(
        f"{found.outputs:,} outputs × {found.width} inputs, fan-in {found.fan_in}: "
        f"{found.weights:,} weights\n"
        f"  needed: {found.needed_bytes / mb:,.0f} MB (values, two moments, indices; "
        f"{found.layer_bytes / mb:,.0f} MB of it the wide layer's)\n"
        f"  peak:   {found.peak_bytes / mb:,.0f} MB in {found.steps} steps, "
        f"{found.ratio:.2f} × what is needed\n"
        f"  dense:  {found.dense_bytes / mb:,.0f} MB for values and moments alone"
    )
