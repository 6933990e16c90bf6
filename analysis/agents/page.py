"""An agent's comparison in words: a table for the terminal, a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.agents.judge import AGENT, HANDCRAFTED, Outcome, Row
from analysis.agents.study import Study, payback
from hwsim import units

if TYPE_CHECKING:
    from rich.console import Console

ACTS = {
    "step": "they multiply or divide a layer's density by a step, or keep it",
    "density": "they name the density of each layer, as opponents do",
}
COLUMNS = (
    "contender", "speed-up (IQM)", "95 %", "slowest", "reached", "mean density", "P(agent faster)",
    "agent / this", "95 %", "episodes", "tuned to",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    own = row.name == AGENT
    return [
        row.name.replace("_", " "), f"{row.speed_up.point:.3f}",
        f"{row.speed_up.low:.3f}–{row.speed_up.high:.3f}", f"{row.slowest:.2f}",
        f"{100 * row.reached:.0f} %", f"{100 * row.density:.0f} %",
        "–" if own else f"{row.against:.2f}",
        "–" if own else f"{row.ratio.point:.3f}",
        "–" if own else f"{row.ratio.low:.3f}–{row.ratio.high:.3f}",
        str(row.learnt_from) if row.learnt_from else "–", row.note,
    ]  # fmt: skip


def verdict(rows: Sequence[Row]) -> str:
    """Whether the goal is met: the lower bound against the best handcrafted schedule above 1."""
    best = next((row for row in rows if row.name in HANDCRAFTED), None)
    if best is None:
        return "No handcrafted schedule took part: nothing is claimed."
    name, r = best.name.replace("_", " "), best.ratio
    said = f"against the best handcrafted schedule ({name}) {r.point:.3f}, {r.low:.3f}–{r.high:.3f}"
    if r.low > 1:
        return f"The agent is faster: {said}."
    if r.high < 1:
        return f"The agent is slower: {said}. The goal is missed."
    return f"The agent is not shown to be faster: {said}. The goal is missed."


def dense_times(outcome: Outcome) -> list[str]:
    """What the dense runs to the target take, by network and device; nothing in the white box."""
    run = outcome.agent.runs[0]
    if not run.dense_s:
        return []
    parts = []
    for group in dict.fromkeys(run.groups):
        own = [s for s, g in zip(run.dense_s, run.groups, strict=True) if g == group]
        parts.append(f"{group} {units.seconds(min(own))} to {units.seconds(max(own))}")
    return [f"Net time of the dense runs to the target, by seed: {'; '.join(parts)}."]


def costs(outcome: Outcome, learning: float, recorded: int = 0) -> str:
    """What the agent's own learning cost, and when it has paid."""
    rows = {row.name: row for row in outcome.rows}
    agent = rows[AGENT]
    after = payback(learning, agent.speed_up.point)
    when = f"it pays after {math.ceil(after)} runs" if math.isfinite(after) else "it never pays"
    real = (
        f"{recorded} recorded runs, counted as dense ones" if recorded
        else "the episodes that it learnt from, at their own net time"
    )  # fmt: skip
    return (
        f"Learning took {agent.learnt_from} episodes and {agent.cost:.0f} s of one processor for "
        f"each agent. Of real training runs it took {learning:.0f} dense runs ({real}); at "
        f"{agent.speed_up.point:.2f} times the dense speed {when} of networks of that size."
    )


def show(console: Console, outcome: Outcome, learning: float, recorded: int = 0) -> None:
    """The table on a terminal."""
    from rich.table import Table

    rows = outcome.rows
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if i in (0, len(COLUMNS) - 1) else "right")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for name, why in outcome.left_out.items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    console.print(verdict(rows), soft_wrap=True)
    console.print(outcome.about_dense, soft_wrap=True)
    console.print(costs(outcome, learning, recorded), soft_wrap=True)


def markdown(
    study: Study, outcome: Outcome, title: str, command: str, learning: float, recorded: int,
    figures: Sequence[Path], notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The page: how it was made, the table, the verdict, figures."""
    rows = outcome.rows
    learn, test = study.learn, study.test
    parts = [
        f"# {title}",
        f"Written by this command; agents that are there are read and not trained again:\n\n"
        f"    {command}",
        f"Learnt in: {learn.kind}, {_problems(learn.problems)} on {', '.join(learn.devices)}, "
        f"seeds {learn.seeds[0]}–{learn.seeds[1] - 1}, reward {learn.reward}. Judged on: "
        f"{_problems(test.world.problems)} on {', '.join(test.world.devices)}, seeds "
        f"{test.world.seeds[0]}–{test.world.seeds[0] + test.episodes - 1}, "
        f"{test.episodes} episodes on each, the loss of the dense run after "
        f"{test.target:.0%} of its steps. "
        f"{study.seeds} agents ({study.algorithm}; {ACTS[learn.mode]}); an opponent that is tuned "
        "has as many episodes as one agent, in the same environment, on the device judged on.",
        *dense_times(outcome),
        verdict(rows),
        outcome.about_dense,
        _pipes(COLUMNS, [cells(row) for row in rows]),
        "Speed-up is the dense run's net time over the contender's, to the same validation loss; "
        "interquartile means with 95 % bootstrap intervals, stratified by network and device. "
        "*agent / this* is paired by episode: the same network, weights and data; agents and "
        "episodes are resampled. *P(agent faster)* counts ties half. Where no target is reached "
        "within the budget, what is left is charged as dense time.",
        costs(outcome, learning, recorded),
        *[f"- {note}" for note in notes],
        *[f"- Left out: {name}: {why}" for name, why in outcome.left_out.items()],
        *[f"![{path.stem}]({path.name})" for path in figures],
    ]
    return "\n\n".join(parts) + "\n"


def _problems(problems: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{network} ({task})" for network, task in problems)


def _pipes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(lines)
