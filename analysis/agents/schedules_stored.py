"""The table of schedules in a file beside its page, from which the page can be written anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.agents import schedules_page as pages
from analysis.agents.schedules_study import Agents, Learning, ScheduleStudy
from analysis.agents.schedules_table import ScheduleTable
from analysis.comparing import stored as comparisons
from sparse_train.runs.config import TrainConfig

KIND = "agent schedules"


@dataclass(frozen=True)
class SchedulesPage:
    """A table with what its page says beside it: the arguments of `schedules_page.markdown`."""

    table: ScheduleTable
    title: str
    command: str
    figures: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The page as Markdown."""
        return pages.markdown(self.table, self.title, self.command, self.figures)

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        study = self.table.study
        given = {f.name: getattr(study, f.name) for f in dataclasses.fields(study)}
        agent = study.learning.agent
        learning = {**dataclasses.asdict(study.learning), "agent": agent and str(agent)}
        compared = comparisons.ComparisonPage(self.table.compared, self.title, self.command)
        return {
            "kind": KIND, "study": {**given, "base": study.base.to_json(), "learning": learning},
            "agents": [self.table.agents.episodes, self.table.agents.cost_s],
            "compared": compared.content(), "figures": self.figures,
        }  # fmt: skip


def loaded(content: Mapping[str, Any]) -> SchedulesPage:
    """What `Stored.content` told, numbers that are not finite read back.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    compared = comparisons.loaded(content["compared"])
    table = compared.table
    given: dict[str, Any] = _tuples(content["study"])
    given["base"] = TrainConfig.from_json(content["study"]["base"])
    learning: dict[str, Any] = _tuples(content["study"]["learning"])
    learning["agent"] = learning["agent"] and Path(learning["agent"])
    given["learning"] = Learning(**learning)
    made = ScheduleTable(
        ScheduleStudy(**given), table.metric, table.devices, table.rows,
        Agents({}, *content["agents"]), table.task, table.trivial, table.lower_is_better,
    )  # fmt: skip
    return SchedulesPage(made, compared.title, compared.command, tuple(content["figures"]))


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
