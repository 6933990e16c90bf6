"""An agent's comparison in words: a table for the terminal, a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.agents.outcome import AGENT, AgentRow, AgentTable, said, speed_up, spread
from analysis.agents.study import AgentStudy, payback
from analysis.comparing.conclusion import CLAIM_SEEDS, LEAST_SEEDS, Verdict
from analysis.comparing.out import pipes
from hwsim import units

if TYPE_CHECKING:
    from rich.console import Console

ACTS = {
    "step": "they multiply or divide a layer's density by a step, or keep it",
    "density": "they name the density of each layer, as opponents do",
}
COLUMNS = (
    "", "rate", "reached", "over dense", "over the best narrower", "over the best handcrafted",
    "agent / this", "verdict", "P(agent faster)", "density", "episodes", "tuned to",
)  # fmt: skip
_SHORT = 7  # columns that fit a terminal


def cells(row: AgentRow) -> list[str]:
    """A line of the page, in the order of COLUMNS."""
    own = row.agent_over
    return [
        row.name.replace("_", " "), spread(row.rates), units.percent(row.reached),
        said(row.over_dense), said(row.over_narrower), said(row.over_handcrafted), said(own),
        "–" if own is None else f"agent {_shortly(own.verdict)}",
        "–" if row.name == AGENT else f"{row.against:.2f}", units.percent(row.density),
        str(row.learnt_from) if row.learnt_from else "–", _first(row.note),
    ]  # fmt: skip


def _shortly(verdict: Verdict) -> str:
    return str(verdict).partition(",")[0].partition(":")[0]


def _first(note: str) -> str:
    """What the first replicate was tuned to, and how many others differ."""
    parts = note.split("; ") if note else []
    return "" if not parts else parts[0] + (f" (and {len(parts) - 1} more)" if parts[1:] else "")


def sentences(outcome: AgentTable) -> list[str]:
    """What was found, one for each device: of the agent, never more than the findings allow."""
    return [_sentence(outcome, one.device) for one in outcome.conclusions]


def _sentence(outcome: AgentTable, device: str) -> str:
    found = next(c for c in outcome.conclusions if c.device == device)
    beside = found.beside.get("cma_es")
    text = found.sentence
    if beside is not None and beside.speed_up is not None:
        text += f" Against CMA-ES: {beside.text} ({beside.verdict})."
    return text


def dense_times(outcome: AgentTable) -> list[str]:
    """What the dense runs to the target take, by network and device; nothing in the white box."""
    parts = []
    for device in outcome.contenders:
        taken: dict[str, list[float]] = {}
        for run in outcome.agent(device).figures:
            for seconds, group in zip(run.dense_s, run.groups, strict=False):
                taken.setdefault(group, []).append(seconds)
        parts += [f"{group} {units.seconds(min(own))} to {units.seconds(max(own))}"
                  for group, own in taken.items()]  # fmt: skip
    return [f"Net time of the dense runs to the target, by seed: {'; '.join(parts)}."] * bool(parts)


def costs(outcome: AgentTable, learning: float, recorded: int = 0) -> str:
    """What the agent's own learning cost, and when it has paid."""
    device = next(iter(outcome.contenders))
    agent, gained = outcome.agent(device), speed_up(outcome, device).point
    after = payback(learning, gained)
    when = f"it pays after {math.ceil(after)} runs" if math.isfinite(after) else "it never pays"
    real = (
        f"{recorded} recorded runs, counted as dense ones" if recorded
        else "the episodes that it learnt from, at their own net time"
    )  # fmt: skip
    return (
        f"Learning took {agent.learnt_from} episodes and {agent.cost:.0f} s of one processor for "
        f"each agent. Of real training runs it took {learning:.0f} dense runs ({real}); at "
        f"{gained:.2f} times the dense speed {when} of networks of that size."
    )


def show(console: Console, outcome: AgentTable, learning: float, recorded: int = 0) -> None:
    """The tables on a terminal."""
    from rich.table import Table

    for device in outcome.contenders:
        table = Table(box=None, pad_edge=False, title=device, title_justify="left")
        for i, name in enumerate(COLUMNS[:_SHORT]):
            table.add_column(name, justify="left" if i == 0 else "right")
        for row in outcome.rows(device):
            table.add_row(*cells(row)[:_SHORT])
        console.print(table)
    for name, why in outcome.left_out.items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    for line in (*sentences(outcome), PROTOCOL, costs(outcome, learning, recorded)):
        console.print(line, soft_wrap=True)


PROTOCOL = (
    "Speed-up: net time of the other over that of the contender, both to the loss above; geometric "
    "means with 95 % bootstrap intervals over replicates, paired; verdicts after Holm's correction "
    f"over all speed-ups here; below {LEAST_SEEDS} replicates nothing is said, below "
    f"{CLAIM_SEEDS} nothing is claimed. Where the loss is not reached within the budget, a whole "
    "dense run is charged on top, and the share that reached it is shown."
)


def about(study: AgentStudy, outcome: AgentTable) -> list[str]:
    """How it was made, a paragraph each."""
    learn, test = study.learn, study.test
    first = test.world.seeds[0]
    return [
        f"Learnt in: {learn.kind}, {_problems(learn.problems)} on {', '.join(learn.devices)}, "
        f"seeds {learn.seeds[0]}–{learn.seeds[1] - 1}, reward {learn.reward}. Judged on: "
        f"{_problems(test.world.problems)}, {study.seeds * test.episodes} seeds from {first}, "
        f"{test.episodes} of them for each replicate; to reach: {outcome.target}. "
        f"{study.seeds} replicates: an agent each ({study.algorithm}; {ACTS[learn.mode]}), and "
        "every opponent tuned anew.",
        *([_RATES] if study.real else []),
        *([_ADAPTED] if study.real and study.adapt else []),
    ]  # fmt: skip


def markdown(
    outcome: AgentTable, title: str, command: str, made: Sequence[str], learning: float,
    recorded: int, figures: Sequence[str], notes: Sequence[str] = (), remarks: Sequence[str] = (),
) -> str:  # fmt: skip
    """The page: what was found, how it was made, the tables, figures.

    Args:
        made: what `about` says.
        learning: what the agent's learning cost, in dense runs.
        recorded: real runs that a surrogate was fitted to.
        figures: names of files beside the page.
        remarks: sentences of the author's.
    """
    parts = [
        f"# {title}",
        "\n".join(sentences(outcome)),
        *(["Nothing was learnt: dense is not better than a predictor that trains nothing."]
          if outcome.learnt is False else []),
        f"Written by this command; what is there is read and not made again:\n\n"
        f"    {command}",
        *remarks,
        *made,
        *dense_times(outcome),
    ]  # fmt: skip
    for device in outcome.contenders:
        parts += [f"## {device}", pipes(COLUMNS, [cells(row) for row in outcome.rows(device)])]
    parts += [
        PROTOCOL,
        "*P(agent faster)* is over episodes that have nothing in common but the device, ties half.",
        costs(outcome, learning, recorded),
        *[f"- {note}" for note in notes],
        *[f"- Left out: {name}: {why}" for name, why in outcome.left_out.items()],
        *[f"![{name.partition('.')[0]}]({name})" for name in figures],
    ]
    return "\n\n".join(parts) + "\n"


_RATES = (
    "Base learning rates: dense by its loss, all others by their own speed, on one grid of factor "
    "2 that is widened until the best lies inside, on tuning seeds of the replicate; *agent* runs "
    "at dense's rate, *agent, own rate* at that which serves it best there. Opponents are tuned on "
    "the judged networks and device, on which agents did not learn. A layer of density d learns at "
    "rate / d in all sparse contenders. That judged networks are named in the command does not say "
    "what its settings were chosen by."
)


_ADAPTED = (
    "*agent, adapted* is the agent after it has learnt on, on the judged networks and device at "
    "dense's rate, on tuning seeds, from a tenth of the episodes that an opponent is tuned with "
    "(whole batches, one at least): its episodes are those alone."
)


def _problems(problems: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{network} ({task})" for network, task in problems)
