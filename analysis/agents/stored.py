"""An agent's table in a file beside its page, from which the page can be written anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.agents import page as pages
from analysis.agents.judge import Judged, JudgedFigures
from analysis.agents.outcome import AgentTable

KIND = "agent compare"


@dataclass(frozen=True)
class AgentPage:
    """A table with what its page says beside it: the arguments of `page.markdown`."""

    outcome: AgentTable
    title: str
    command: str
    made: tuple[str, ...]
    learning: float
    recorded: int
    figures: tuple[str, ...]
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The page as Markdown."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return pages.markdown(**said)

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        outcome = said.pop("outcome")
        return {
            "kind": KIND, **said, "target": outcome.target, "left_out": dict(outcome.left_out),
            "learnt": outcome.learnt, "rate": outcome.rate,
            "contenders": {
                device: [_content(one) for one in contenders]
                for device, contenders in outcome.contenders.items()
            },
        }  # fmt: skip


def _content(one: Judged) -> dict[str, Any]:
    rest = {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name != "runs"}
    runs = [
        {**dataclasses.asdict(run), "speed_ups": run.speed_ups.tolist(),
         "reached": run.reached.tolist()}
        for run in one.figures
    ]  # fmt: skip
    return {**rest, "runs": runs}


def loaded(content: Mapping[str, Any]) -> AgentPage:
    """What `Stored.content` told, numbers that are not finite read back.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    given: dict[str, Any] = dict(content)
    contenders = {
        device: tuple(_made(one) for one in found)
        for device, found in given.pop("contenders").items()
    }
    outcome = AgentTable(
        contenders, given.pop("target"), given.pop("left_out"), given.pop("learnt"),
        given.pop("rate"),
    )  # fmt: skip
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
            if k not in ("kind", "version")}  # fmt: skip
    return AgentPage(outcome, **said)


def _made(one: Mapping[str, Any]) -> Judged:
    given: dict[str, Any] = {**one, "rates": tuple(one["rates"])}
    given["runs"] = tuple(map(_figures, one["runs"]))
    return Judged(**given)


def _figures(run: Mapping[str, Any]) -> JudgedFigures:
    given: dict[str, Any] = {
        **run,
        "groups": tuple(run["groups"]),
        "dense_s": tuple(run["dense_s"]),
    }
    given["speed_ups"] = np.array(run["speed_ups"], dtype=np.float64)
    given["reached"] = np.array(run["reached"], dtype=bool)
    return JudgedFigures(**given)
