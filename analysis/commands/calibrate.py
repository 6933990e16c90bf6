"""`nettime calibrate`: a specification of a machine, fitted to what was measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim.calibration.dispatch import Calibration

_WHAT = ("gpu", "cpu")


def register(app: typer.Typer) -> None:
    """Adds `nettime calibrate`."""
    app.command(
        "calibrate",
        short_help="Fit a device to measurements: a GPU's records, or this CPU, timed now.",
        epilog=options.examples(
            "nettime calibrate gpu --records mine.jsonl --data-sheet h100 --out mine.toml",
            "nettime calibrate cpu --out this.toml",
            "nettime calibrate cpu --quick --data-sheet zen3 --out mine.toml",
            "nettime calibrate cpu --records mine.jsonl --data-sheet zen3 --out mine.toml",
            "nettime estimate bert-base --device mine.toml",
            "nettime calibrate gpu --records mine.jsonl --data-sheet a100 --out a.toml --json",
        ),
    )(calibrate)


def calibrate(
    what: Annotated[str, typer.Argument(help="gpu, from records; or cpu, this one.")],
    out: Annotated[Path, typer.Option("--out", help="Where the specification goes (.toml).")],
    records: Annotated[
        Path | None,
        typer.Option("--records", help="Measurements, JSON Lines; cpu: in place of timing."),
    ] = None,
    data_sheet: Annotated[
        str | None,
        typer.Option("--data-sheet", help="The device whose numbers hold where no record does."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of the kernels (cpu).")] = 1,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="cpu: some seconds of timing, to scale --data-sheet by."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the cuts and starts of the fit.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Writes a specification that `--device` takes, and says how far off it is where unseen."""
    import numpy as np

    options.chosen("calibrate", what, _WHAT)
    options.written("--out", out, ".toml")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out: folder {out.absolute().parent} does not exist")
    rng = np.random.default_rng(options.at_least("--seed", seed, 0))
    if what == "gpu" and not quick and (records is None or data_sheet is None):
        raise InputError("calibrate gpu: needs both --records FILE and --data-sheet DEVICE")
    if what == "cpu" and not quick and (records is None) != (data_sheet is None):
        raise InputError(
            "calibrate cpu: times this machine without --records and --data-sheet, or fits to "
            "records with both; one of them is missing"
        )
    with options.claimed(out, "file"):
        if quick:
            _quick(what, records, data_sheet, out, rng, as_json)
        elif what == "gpu":
            _gpu(records, data_sheet, out, rng, as_json)
        else:
            _cpu(records, data_sheet, out, options.at_least("--threads", threads), rng, as_json)


def _gpu(records: Path | None, data_sheet: str | None, out: Path, rng: Any, as_json: bool) -> None:
    from analysis.display.console import progress_bar
    from hwsim import load_device
    from hwsim.calibration.dispatch import calibrate as fitted
    from hwsim.measured.record import read_measurements, write_whole

    assert records is not None and data_sheet is not None  # asked before
    timed = read_measurements(records)
    with progress_bar(f"fitting to {len(timed)} records", 1):
        found = fitted(load_device(data_sheet), timed, rng=rng)
    write_whole(out, [found.text])
    _print(found, out, as_json)


def _cpu(
    records: Path | None,
    data_sheet: str | None,
    out: Path,
    threads: int,
    rng: Any,
    as_json: bool,
) -> None:
    from analysis.display.console import progress_bar
    from hwsim import load_device
    from hwsim.calibration.dispatch import calibrate as fitted
    from hwsim.calibration.measure_cpu import calibrate_machine
    from hwsim.measured.record import read_measurements, write_whole

    if records is not None and data_sheet is not None:
        timed = read_measurements(records)
        with progress_bar(f"fitting to {len(timed)} records", 1):
            found = fitted(load_device(data_sheet), timed, rng=rng)
    else:
        with progress_bar("timing this machine, some 75 s", 1):
            found, _ = calibrate_machine(threads=threads, rng=rng)
    write_whole(out, [found.text])
    _print(found, out, as_json)


def _quick(
    what: str, records: Path | None, data_sheet: str | None, out: Path, rng: Any, as_json: bool
) -> None:
    from analysis.display.console import print_json, progress_bar, stdout
    from hwsim import load_device
    from hwsim.calibration import quick
    from hwsim.calibration.measure_cpu import measure_cpu
    from hwsim.devices.cpu import Cpu
    from hwsim.measured.record import read_measurements, write_whole
    from hwsim.measured.timing import clock_hz, processor

    device = load_device(data_sheet or "zen3")
    if what != "cpu" or not isinstance(device, Cpu):
        raise InputError(
            f"--quick: scales the constants of a cpu; {device.name} is of model {device.model!r}"
        )
    if records is not None:
        timed = read_measurements(records)
    else:
        with progress_bar("timing this machine", 1):
            timed = measure_cpu(
                quick.QUICK_CASES, threads=device.threads, budget_s=quick.QUICK_S, rng=rng
            )
    found = quick.scaling(device, timed)
    machine = timed[0].machine if records is not None else processor()
    write_whole(out, [quick.scaled_text(device, found, machine=machine, clock_hz=clock_hz())])
    if as_json:
        return print_json({
            "command": "calibrate", "out": out, "machine": machine, "scaled": device.name,
            "ratios": found.ratios, "mape_before": found.before, "mape_after": found.after,
        })  # fmt: skip
    slower = ", ".join(f"{kernel} ×{ratio:.2f}" for kernel, ratio in found.ratios.items())
    stdout().print(
        f"{machine}: seconds beside those of {device.name}: {slower}.\n"
        f"Error of its prices on what was timed: {_percent(found.before)} as they were, "
        f"{_percent(found.after)} scaled.\n{out}: use it with --device {out}"
    )
    return None


def _print(found: Calibration, out: Path, as_json: bool) -> None:
    from analysis.display.console import print_json, stdout
    from analysis.display.tables import table

    check = found.held_out
    if as_json:
        return print_json({
            "command": "calibrate", "out": out, "held_out": list(found.errors),
            "left_out": found.rejected,
            "speed_ups": check.rows() if check else [], "sizes": check.size_rows() if check else [],
        })  # fmt: skip
    rows = [
        [
            row["kernel"], row["operands"], str(row["records"]), _percent(row["held_out_mape"]),
            _percent(row["held_out_bias"]), f"×{row['low']:.2f} to ×{row['high']:.2f}",
        ]
        for row in found.errors
    ]  # fmt: skip
    columns = ("kernel", "operands", "held-out records", "MAPE", "bias", "interval")
    stdout().print(table("Error on shapes that the fit had not seen", columns, rows))
    if check is not None:
        from analysis.commands.crosscheck import print_errors

        print_errors(check, "The same, by operand type and size")
    for why, count in found.rejected.items():
        stdout().print(f"left out: {count} records: {why}")
    stdout().print(f"{out}: use it with --device {out}")
    return None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
