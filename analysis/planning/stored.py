"""A plan in a file beside its page: the law and the priced steps, from which all else follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.comparing.out import pipes
from analysis.planning import page as pages
from analysis.planning.law import Law
from analysis.planning.plan import Best, Candidate, Front, best
from analysis.planning.prices import Size

KIND = "plan"


@dataclass(frozen=True)
class PlanPage:
    """What a plan is made of, and its page.

    Attributes:
        candidates: of each device, as they were priced.
        budget_s, loss: one of the two: net seconds, or the loss to be reached.
        figure: name of the file beside the page, if there is one.
    """

    law: Law
    candidates: tuple[tuple[Candidate, ...], ...]
    command: str
    budget_s: float | None = None
    loss: float | None = None
    figure: str | None = None

    @cached_property
    def answers(self) -> list[Best]:
        """Of each device."""
        how: dict[str, Any] = {"budget_s": self.budget_s, "loss": self.loss}
        return [best(self.law, of_device, **how) for of_device in self.candidates]

    @cached_property
    def fronts(self) -> dict[str, Front]:
        """Device → loss against net time, around that of its best candidate."""
        return {
            answer.device: Front(self.law, given, answer.seconds[answer.winner.name])
            for answer, given in zip(self.answers, self.candidates, strict=True)
        }

    @property
    def page(self) -> str:
        """The page as Markdown."""
        said = [
            line for answer in self.answers
            for line in (answer.sentence, answer.forecast and answer.forecast.sentence) if line
        ]  # fmt: skip
        parts = [
            "# A plan: size, sparsity and length for a net time",
            "\n".join(f"- {line}" for line in said),
            f"Written by this command:\n\n    {self.command}",
        ]
        for answer in self.answers:
            lowest = "; ".join(pages.pareto_lines(self.fronts[answer.device]))
            parts += [f"## {answer.device}", pipes(pages.COLUMNS, pages.rows(self.law, answer)),
                      f"Lowest loss {lowest}."]  # fmt: skip
        if self.figure is not None:
            parts.append(f"![loss against net time]({self.figure})")
        notes = pages.notes(self.law, self.answers[0].candidates)
        parts += ["## To know", "\n".join(f"- {note}" for note in notes)]
        return "\n\n".join(parts) + "\n"

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        priced = [[dataclasses.asdict(one) for one in given] for given in self.candidates]
        return {"kind": KIND, **said, "law": dataclasses.asdict(self.law), "candidates": priced}


def loaded(content: Mapping[str, Any]) -> PlanPage:
    """What `PlanPage.content` told.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    law: dict[str, Any] = dict(content["law"])
    law["range"] = {name: tuple(ends) for name, ends in law["range"].items()}
    law["draws"] = tuple(law["draws"])
    rest: dict[str, Any] = {
        name: content[name] for name in ("command", "budget_s", "loss", "figure")
    }
    return PlanPage(Law(**law), tuple(map(_priced, content["candidates"])), **rest)


def _priced(given: Sequence[dict[str, Any]]) -> tuple[Candidate, ...]:
    made = []
    for one in given:
        fields: dict[str, Any] = {**one, "size": Size(**one["size"])}
        made.append(Candidate(**fields))
    return tuple(made)
