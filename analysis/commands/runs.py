"""`nettime runs`: what runs there are, and in what they differ."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands import options


def register(app: typer.Typer) -> None:
    """Adds `nettime runs`."""
    app.command(
        "runs",
        short_help="List training runs, and the settings in which they differ.",
        epilog=options.examples(
            "nettime runs", 'nettime runs "runs/*" runs/demo/dense', "nettime runs --json"
        ),
    )(runs)


def runs(
    pattern: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help='Folders or patterns; "runs/*".')
    ] = None,
    as_json: options.Json = False,
) -> None:
    """One line per run: how far it came, and each setting in which the runs differ.

    In Python, nettime.runs("runs/*") is the same as one Polars frame, with every setting.
    """
    from analysis.display.console import print_json, stdout
    from analysis.display.tables import table
    from analysis.reporting import listing

    found = listing.runs(pattern or ["runs/*"])
    differ = listing.differences(found)
    if as_json:
        return print_json(
            {"command": "runs", "runs": found.to_dicts(), "differ": differ.columns[1:]}
        )
    shown = found.select("run", "steps_done", "loss", "best_loss").rows()
    columns = ("run", "steps", "last loss", "best loss")
    console = stdout()
    rows = [(run, str(steps), _number(loss), _number(best)) for run, steps, loss, best in shown]
    console.print(table("", columns, rows, text=columns[:1]))
    for name in differ.columns[1:]:
        values = ", ".join(str(value) for value in dict.fromkeys(differ[name].to_list()))
        console.print(f"  they differ in {name}: {values}", soft_wrap=True, highlight=False)
    return None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
