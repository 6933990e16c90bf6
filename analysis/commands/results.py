"""`nettime results`: whether pages say what their stored tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands import options
from hwsim.errors import InputError

DEFAULT_FOLDER = Path("docs/results")


def register(app: typer.Typer) -> None:
    """Adds `nettime results`."""
    app.command(
        "results",
        short_help="Check result pages against their stored tables, or write them anew.",
        epilog=options.examples(
            "nettime results", "nettime results docs/results --json", "nettime results --rewrite"
        ),
    )(results)


def results(
    folder: Annotated[Path, typer.Argument(help="Of the pages.")] = DEFAULT_FOLDER,
    rewrite: Annotated[
        bool,
        typer.Option(
            "--rewrite",
            help="Write every page that has a table from it, and what the table concludes.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """A page with a table beside it (x.md, x.json) must be what the table gives, to the letter.

    `nettime compare --write x.md` writes both. Ends with code 2 if any page is not.
    """
    from analysis import results as stored
    from analysis.display.console import print_json, stdout

    if rewrite:
        for table in sorted(folder.glob("*.json")):
            stored.write(stored.load(table), table.with_suffix(".md"))
    wrong, without = stored.disagreements(folder)
    if wrong:
        raise InputError("results: " + "; ".join(wrong))
    if as_json:
        print_json({"command": "results", "without_table": without})
    else:
        console = stdout()
        checked = len(list(folder.glob("*.md"))) - len(without)
        console.print(f"{checked} pages checked against their tables.")
        if without:
            console.print(f"No stored table, so not checked: {', '.join(without)}.")
