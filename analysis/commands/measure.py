"""`nettime measure`: times real kernels, of the GPU at hand or on the masks of runs on this CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.checks import check_number
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim.measured.gpu_suite import SuiteResult
    from hwsim.measured.record import Measurement


def register(app: typer.Typer) -> None:
    """Adds `nettime measure`."""
    app.command(
        "measure",
        short_help="Time real kernels: on this machine's GPU, or on masks that runs learnt.",
        epilog=options.examples(
            "nettime measure gpu --out h200.jsonl",
            "nettime measure gpu --out h200.jsonl --minutes 3",
            "nettime measure cpu --run runs/srigl --run runs/rigl --batch 1 --batch 256",
            "nettime measure gpu --out h200.jsonl --data-sheet h200 --json",
            "nettime calibrate gpu --records h200.jsonl --data-sheet h200 --out mine.toml",
        ),
    )(measure)


def measure(
    what: Annotated[str, typer.Argument(help="gpu, or cpu with --run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Of gpu: records, JSON Lines (.jsonl); appended to."),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", help="Begin nothing new after so long.")
    ] = 8,
    data_sheet: Annotated[
        str | None,
        typer.Option("--data-sheet", help="A device: its estimate stands beside each step."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", help="Of cpu: a run folder whose last masks are used; repeatable."),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Of cpu: samples; repeatable. Default 1 and 256.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of cpu: a median is over so many samples.")] = 15,
    write: Annotated[
        Path | None, typer.Option(help="Of cpu: a Markdown page, its table beside it.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Kernels on learnt masks",
    remark: Annotated[
        list[str] | None, typer.Option(help="A paragraph of the page, yours; repeatable.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Of gpu: dense, 2:4 by both of torch's backends, CSR, gather and block kernels, and steps.

    Forward and both gradients, in CUDA graphs and eagerly, with packing apart and included. What
    the file already holds is not measured again, so that the command can be started once more.
    Whole steps go into a file NAME-steps.jsonl beside it too, which `crosscheck steps` reads.

    Of cpu: the forward product of every masked linear layer of runs, by every kernel of ours and
    by the dense and CSR libraries, under the learnt masks and under drawn ones of as many weights.
    """
    options.chosen("measure", what, ("gpu", "cpu"))
    if what == "cpu":
        if not run or out is not None or data_sheet is not None:
            raise InputError("measure cpu: takes --run, at least one, and neither --out nor "
                             "--data-sheet")  # fmt: skip
        return _on_learnt(run, batch, rounds, write, title, tuple(remark or ()), as_json)
    if run or batch or write is not None:
        raise InputError("--run, --batch, --write: go with measure cpu")
    if out is None:
        raise InputError("--out: is missing; measure gpu writes its records there")
    options.written("--out", out, ".jsonl")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out: folder {out.absolute().parent} does not exist")
    check_number("--minutes", minutes, above=0)
    from analysis.display.console import print_json, progress_bar, resumable
    from hwsim import load_device
    from hwsim.measured.gpu_suite import plan, run_suite
    from hwsim.measured.record import read_measurements

    device = load_device(data_sheet) if data_sheet is not None else None
    timer, clocks = _timer()
    before, groups = clocks(), plan()
    from analysis.estimating.gpu_steps import measured_steps, steps
    from analysis.steps.record import write_steps

    with options.claimed(out, "file"):
        with (
            resumable(f"{out} holds what was measured; the same command goes on"),
            progress_bar("measuring", len(groups)) as update,
        ):
            outcome = run_suite(groups, timer, out, budget_s=60.0 * minutes, progress=update)
        records = read_measurements(out) if out.exists() else []
        whole = measured_steps(records)
        beside = out.with_name(f"{out.stem}-steps.jsonl") if whole else None
        if beside is not None:
            with options.claimed(beside, "file"):
                write_steps(beside, whole)
    rows = steps(records, device)
    after = clocks()
    if as_json:
        return print_json({
            "command": "measure", "out": out, "machine": timer.machine,
            "measured": len(outcome.measured), "kept": outcome.kept, "left": outcome.left,
            "skipped": outcome.skipped, "clocks": {"before": before, "after": after},
            "steps": rows, "steps_file": beside,
        })  # fmt: skip
    _print(out, timer.machine, outcome, (before, after), rows, records)
    if beside is not None:
        from analysis.display.console import stdout

        stdout().print(f"whole steps, for nettime crosscheck steps: {beside}", soft_wrap=True)
    return None


def _on_learnt(
    folders: list[Path], batches: list[int] | None, rounds: int, write: Path | None, title: str,
    remarks: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    from analysis import results
    from analysis.display.console import print_json, progress_bar, stdout
    from analysis.display.tables import table
    from analysis.measuring import learnt, page
    from hwsim.measured.timing import processor

    options.at_least("--rounds", rounds)
    with progress_bar("timing layers", learnt.count(folders)) as update:
        rows = learnt.time_runs(
            folders, tuple(batches or learnt.BATCHES), rounds=rounds, done=update
        )
    command = options.command_line()
    stored = page.KernelsPage(tuple(rows), title, command, processor(), remarks)
    written = []
    if write is not None:
        written = results.write(stored, write)
    if as_json:
        return print_json({"command": "measure", **stored.content(), "written": written})
    console = stdout()
    short = (0, 1, 5, 6, 7)
    lines = [page.cells(group) for group in page.groups(rows)]
    console.print(table(
        f"Forward products on {processor()}, one thread", [page.COLUMNS[i] for i in short],
        [[line[i] for i in short] for line in lines],
    ))  # fmt: skip
    console.print(page.NOTE)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)
    return None


def _timer() -> tuple[Any, Any]:
    """CUDA's timer and clock reader; an InputError without torch or without a GPU."""
    try:
        from hwsim.kernels.gpu.suite.timer import CudaTimer, clocks
    except ImportError as error:
        raise InputError(
            f"measure gpu: module {error.name!r} is not installed; "
            "allowed is an installation with the extra 'gpu' (torch and triton)"
        ) from None
    return CudaTimer(), clocks


def _print(
    out: Path, machine: str, outcome: SuiteResult, clocks: tuple[str, str],
    rows: Sequence[dict[str, Any]], records: Sequence[Measurement],
) -> None:  # fmt: skip
    from analysis.display.console import stdout
    from analysis.display.tables import table
    from hwsim.units import ratio, seconds

    console = stdout()
    console.print(
        f"{machine}: {len(outcome.measured)} records measured, {outcome.kept} kept, "
        f"{len(records)} in {out}."
    )
    if any(clocks):
        console.print(f"SM clock, power, temperature: {clocks[0]} before, {clocks[1]} after.")
    cells = [
        [
            row["step"],
            *(
                shown(row[name]) if row[name] is not None else "–"
                for name, shown in (
                    ("measured_s", seconds), ("speed_up", ratio),
                    ("estimated_s", seconds), ("estimated_speed_up", ratio),
                )
            ),
        ]
        for row in rows
    ]  # fmt: skip
    if cells:
        columns = ("training step", "measured", "gain", "estimated", "gain")
        console.print(table("Encoder blocks, a whole step", columns, cells))
    for why, count in outcome.skipped.items():
        console.print(f"no record: {count} × {why}")
    if outcome.left:
        console.print(f"{outcome.left} cases left: start the same command again.", style="bold")
