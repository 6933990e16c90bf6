"""How a report came about: version, command, date, data, and in what its runs differ."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.reporting import listing
from nettime import __version__


def of_command(command: Sequence[str]) -> list[tuple[str, str]]:
    """Version, command and date, for a page about no run."""
    now = datetime.datetime.now(datetime.UTC)
    return [
        ("version", f"nettime {__version__}"),
        ("command", shlex.join(command)),
        ("date", now.strftime("%Y-%m-%d %H:%M UTC")),
    ]


def lines(
    folders: Sequence[Path], names: Sequence[str], command: Sequence[str]
) -> list[tuple[str, str]]:
    """(what, value) pairs for `report.report`.

    Args:
        folders, names: of the runs on the page.
        command: that makes it.
    """
    table = listing.runs([str(folder) for folder in folders])
    made = [
        *of_command(command),
        ("data (digest)", ", ".join(dict.fromkeys(table["data"].to_list()))),
    ]
    differ = listing.differences(table)
    for name in differ.columns[1:]:
        values = zip(names, differ[name].to_list(), strict=True)
        made.append((f"differs: {name}", "; ".join(f"{run}: {value}" for run, value in values)))
    return made
