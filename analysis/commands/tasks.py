"""`nettime tasks`: what can be learnt here, on which data, and how to begin."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any, get_type_hints

import typer

from analysis.commands import options


def register(app: typer.Typer) -> None:
    """Adds `nettime tasks`."""
    app.command(
        "tasks",
        short_help="What can be learnt here, with its model, its metric and its options.",
        epilog=options.examples("nettime tasks", "nettime tasks --json"),
    )(tasks)


def tasks(as_json: options.Json = False) -> None:
    """Lists the tasks that nettime trains on; each goes with train, compare and estimate.

    Nothing is read or fetched: a task's data are looked for when it is trained.
    """
    found = [_described(name) for name in _names()]
    from analysis.display.console import print_json, stdout
    from analysis.display.tables import table

    if as_json:
        return print_json({"command": "tasks", "tasks": found})
    console = stdout()
    rows = [(t["name"], _first(t["options"]), t["model"], t["metric"]) for t in found]
    console.print(table("", ("task", "its own data", "its own model", "metric"), rows))
    console.print("One of them: nettime train --task images --algorithm rigl --run runs/images")
    return None


def _names() -> tuple[str, ...]:
    from sparse_train.registries import TASKS

    return TASKS.names()


def _first(choices: dict[str, Any]) -> str:
    """A task's first option says what it learns from."""
    return str(next(iter(choices.values())))


def _described(name: str) -> dict[str, Any]:
    from sparse_train.registries import TASKS

    kind = TASKS.get(name)
    prepared = get_type_hints(kind.prepare)["return"]
    words = importlib.import_module(kind.__module__).__doc__ or ""
    return {
        "name": name,
        "what": words.strip().splitlines()[0].rstrip("."),
        "model": f"{kind.default_model} {kind.default_preset}",
        "metric": prepared.metric,
        "lower_is_better": prepared.lower_is_better,
        "options": {field.name: field.default for field in fields(kind)},
    }
