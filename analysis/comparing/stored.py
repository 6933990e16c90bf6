"""A comparison's table in a file beside its page, from which the page can be written anew."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.comparing.plan import Choice, ComparisonPlan, Entry
from analysis.comparing.runs import Figures
from analysis.comparing.table import Row, Table
from analysis.comparing.variants import Variant


@dataclass(frozen=True)
class ComparisonPage:
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
        """The page as Markdown."""

        from analysis.comparing.out import markdown

        return markdown(self.table, self.title, self.command, self.remarks)

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        table = self.table
        plan = {f.name: getattr(table.plan, f.name) for f in dataclasses.fields(table.plan)}
        plan["base"] = table.plan.base.to_json()
        plan["variants"] = [dataclasses.asdict(one) for one in table.plan.variants]
        return {
            "title": self.title, "command": self.command,
            "remarks": self.remarks, "plan": plan, "metric": table.metric,
            "lower_is_better": table.lower_is_better, "devices": table.devices,
            "task": table.task, "trivial": table.trivial, "share": table.share,
            "rows": [_row(row) for row in table.rows],
            "conclusions": [one.to_json() for one in table.conclusions],
        }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        "entry": dataclasses.asdict(row.entry),
        "rate": row.choice.rate, "tried": list(row.choice.tried.items()),
        "runs": {seed: dataclasses.asdict(run) for seed, run in row.runs.items()},
        "folders": {seed: str(folder) for seed, folder in row.folders.items()},
    }  # fmt: skip


def loaded(content: dict[str, Any]) -> ComparisonPage:
    """What `ComparisonPage.content` told, numbers that are not finite read back.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    from sparse_train.runs.config import TrainConfig

    given: dict[str, Any] = dict(content["plan"])
    given["base"] = TrainConfig.from_json(given["base"])
    given["variants"] = tuple(Variant(**one) for one in given["variants"])
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    plan = ComparisonPlan(**settings)
    table = Table(
        plan=plan, metric=content["metric"], lower_is_better=content["lower_is_better"],
        devices=tuple(content["devices"]), rows=tuple(_made(row) for row in content["rows"]),
        task=content["task"], trivial=content["trivial"], share=content["share"],
    )  # fmt: skip
    return ComparisonPage(table, content["title"], content["command"], tuple(content["remarks"]))


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
