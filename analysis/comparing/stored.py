"""A comparison's table in a file beside its page, from which the page can be written anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.comparing.plan import Choice, Entry, Plan
from analysis.comparing.runs import Figures
from analysis.comparing.table import Row, Table
from analysis.comparing.variants import Variant
from hwsim import InputError

_VERSION = 1


@dataclass(frozen=True)
class Stored:
    """A table with what its page says beside it.

    Attributes:
        command: that made it.
        remarks: sentences of the author's, after the table of contents of the page: what was cut,
            what was expected, which literature was read.
    """

    table: Table
    title: str
    command: str
    remarks: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        from analysis.comparing.out import markdown

        return markdown(self.table, self.title, self.command, self.remarks)


def beside(page: Path) -> Path:
    """Where the table of a page lies."""
    return page.with_suffix(".json")


def dumps(stored: Stored) -> str:
    """As text; equal tables give equal texts."""
    table = stored.table
    plan = {f.name: getattr(table.plan, f.name) for f in dataclasses.fields(table.plan)}
    plan["base"] = table.plan.base.to_json()
    plan["variants"] = [dataclasses.asdict(one) for one in table.plan.variants]
    content = {
        "version": _VERSION, "title": stored.title, "command": stored.command,
        "remarks": stored.remarks, "plan": plan, "metric": table.metric,
        "lower_is_better": table.lower_is_better, "devices": table.devices,
        "task": table.task, "trivial": table.trivial, "share": table.share,
        "rows": [_row(row) for row in table.rows],
        "conclusions": [one.to_json() for one in table.conclusions],
    }  # fmt: skip
    return json.dumps(_plain(content), indent=1, ensure_ascii=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
    return {
        "entry": dataclasses.asdict(row.entry),
        "rate": row.choice.rate, "tried": list(row.choice.tried.items()),
        "runs": {seed: dataclasses.asdict(run) for seed, run in row.runs.items()},
        "folders": {seed: str(folder) for seed, folder in row.folders.items()},
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """NaN and infinity have no place in JSON: they are written as strings."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"float:{value}"
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and value.startswith("float:"):
        return float(value.removeprefix("float:"))
    return value


def load(path: Path) -> Stored:
    """Reads a stored table.

    Raises:
        InputError: it is not there, or not one.
    """
    try:
        content = _numbers(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"table {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"table {path}: no JSON ({error})") from None
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise InputError(f"table {path}: not a table of nettime compare")
    try:
        return _stored(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"table {path}: {type(error).__name__} at {error}") from None


def _stored(content: dict[str, Any]) -> Stored:
    from sparse_train.runs.config import TrainConfig

    given: dict[str, Any] = dict(content["plan"])
    given["base"] = TrainConfig.from_json(given["base"])
    given["variants"] = tuple(Variant(**one) for one in given["variants"])
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    plan = Plan(**settings)
    table = Table(
        plan=plan, metric=content["metric"], lower_is_better=content["lower_is_better"],
        devices=tuple(content["devices"]), rows=tuple(_made(row) for row in content["rows"]),
        task=content["task"], trivial=content["trivial"], share=content["share"],
    )  # fmt: skip
    return Stored(table, content["title"], content["command"], tuple(content["remarks"]))


def _made(row: dict[str, Any]) -> Row:
    entry: dict[str, Any] = {**row["entry"], "beside": tuple(row["entry"]["beside"])}
    runs = {}
    for seed, run in row["runs"].items():
        figures: dict[str, Any] = dict(run)
        figures["steps"] = tuple(figures["steps"])
        figures["courses"] = {m: tuple(v) for m, v in figures["courses"].items()}
        figures["seconds"] = {d: tuple(v) for d, v in figures["seconds"].items()}
        figures["times"] = {d: tuple(v) for d, v in figures["times"].items()}
        runs[int(seed)] = Figures(**figures)
    choice = Choice(row["rate"], {float(rate): metric for rate, metric in row["tried"]})
    folders = {int(seed): Path(folder) for seed, folder in row["folders"].items()}
    return Row(Entry(**entry), choice, runs, folders)


def disagreements(folder: Path) -> tuple[list[str], list[str]]:
    """(what is wrong, which pages have no table) among the pages of a folder.

    A page is wrong if it is not, to the letter, what its table gives.

    Raises:
        InputError: no page there.
    """
    pages = sorted(folder.glob("*.md"))
    if not pages:
        raise InputError(f"results {folder}: no page there")
    wrong, without = [], []
    for page in pages:
        if not beside(page).is_file():
            without.append(page.name)
            continue
        wanted, found = load(beside(page)).page, page.read_text(encoding="utf-8")
        if wanted != found:
            lines = zip(wanted.splitlines(), found.splitlines(), strict=False)
            number = next((i for i, (a, b) in enumerate(lines, 1) if a != b), "the end")
            wrong.append(f"{page.name}: line {number} is not what {beside(page).name} gives")
    pages_of = {page.stem for page in pages}
    wrong += [f"{table.name}: has no page" for table in sorted(folder.glob("*.json"))
              if table.stem not in pages_of]  # fmt: skip
    return wrong, without
