"""What an agent's comparison found: conclusions by the protocol of all comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from analysis.agents.judge import Judged
from analysis.comparing import conclusion as protocol
from analysis.comparing.clocks import Clocked, SeedClock
from analysis.comparing.conclusion import DENSE, NARROWER, SPARSE, Conclusion, Finding
from analysis.stats import Interval, probability_of_improvement

AGENT, OWN_RATE, BLIND_AGENT = "agent", "agent, own rate", "agent without hardware"
# After learning on what is judged with a tenth of the episodes that an opponent is tuned with.
ADAPTED = "agent, adapted"
AGENTS = (AGENT, OWN_RATE, ADAPTED, BLIND_AGENT)
# What agents are held against beside dense and narrower models: the best of these that is there.
HANDCRAFTED = (
    "static_uniform", "static_erk", "linear", "quadratic", "cubic", "cosine", "best_constant",
    "best_schedule",
)  # fmt: skip


@dataclass(frozen=True)
class AgentRow:
    """A line of the table.

    Attributes:
        findings: over dense, over the best narrower model, over the best handcrafted schedule,
            and the agent over this; None where there is no such question.
        against: probability that the agent is faster than this in an episode of its own.
    """

    name: str
    rates: tuple[float, ...]
    reached: float
    density: float
    over_dense: Finding | None
    over_narrower: Finding | None
    over_handcrafted: Finding | None
    agent_over: Finding | None
    against: float
    note: str
    learnt_from: int


@dataclass(frozen=True)
class AgentTable:
    """All contenders by device, and what could not take part with its reason.

    Attributes:
        target: what was to be reached, in words.
        learnt: whether dense is better than a predictor that trains nothing; None: not known.
        rate: the task's own learning rate; 0 where there is none.
    """

    contenders: Mapping[str, tuple[Judged, ...]]
    target: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    learnt: bool | None = None
    rate: float = 0.0

    def agent(self, device: str) -> Judged:
        """The agent that was learnt, with the features of the hardware."""
        return next(c for c in self.contenders[device] if c.name == AGENT)

    @cached_property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """One for each device; corrected for all that they ask together."""
        made = []
        for device, contenders in self.contenders.items():
            taking = [self._clocked(c) for c in contenders]
            first = self.agent(device).figures
            ids = [(i, j) for i, run in enumerate(first) for j in range(len(run.groups))]
            groups = {number: i for number, (i, _) in enumerate(ids)}
            made.append(
                protocol.conclude(taking, device, SeedClock(groups), self.target, subject=AGENT)
            )
        return tuple(protocol.corrected(made))

    def _clocked(self, one: Judged) -> Clocked:
        seconds: dict[int, float] = {}
        late = set()
        for run in one.figures:
            for took, reached in zip(run.seconds, run.reached.tolist(), strict=True):
                if not reached:
                    late.add(len(seconds))
                seconds[len(seconds)] = float(took)
        kind = DENSE if one.name == "dense" else SPARSE
        if one.name.startswith("narrower"):
            kind = NARROWER
        return Clocked(
            one.name, kind, {}, self.learnt, not one.at_an_end, one.name in HANDCRAFTED,
            seconds=seconds, late=frozenset(late),
        )  # fmt: skip

    def rows(self, device: str) -> list[AgentRow]:
        """The table of a device, fastest first."""
        found = next(c for c in self.conclusions if c.device == device)
        agent = self.agent(device)
        made = []
        for c in self.contenders[device]:
            beside = found.beside.get(c.name)
            if c.name == "dense":
                beside = found.over_dense.get(AGENT)
            elif c.name == found.narrower:
                beside = found.over_narrower.get(AGENT)
            elif beside is None and c.name != AGENT:
                beside = found.over_known.get(AGENT)
            made.append(AgentRow(
                c.name, tuple(self.rate * factor for factor in c.rates), c.reached(), c.density(),
                found.over_dense.get(c.name), found.over_narrower.get(c.name),
                found.over_known.get(c.name), beside,
                probability_of_improvement(agent.speed_ups.tolist(), c.speed_ups.tolist()),
                c.note, c.learnt_from,
            ))  # fmt: skip
        return sorted(made, key=lambda row: -_speed(row.over_dense))

    def to_json(self) -> dict[str, Any]:
        """Conclusions, rows and every episode's speed-up."""
        return {
            "target": self.target, "left_out": dict(self.left_out),
            "conclusions": [one.to_json() for one in self.conclusions],
            "rows": {
                device: [
                    {
                        "name": row.name, "rates": row.rates, "reached": row.reached,
                        "density": row.density, "probability_agent_faster": row.against,
                        "note": row.note, "episodes": row.learnt_from,
                    }
                    for row in self.rows(device)
                ]
                for device in self.contenders
            },
            "speed_ups": {
                device: {c.name: [run.speed_ups for run in c.figures] for c in contenders}
                for device, contenders in self.contenders.items()
            },
        }  # fmt: skip


def _speed(finding: Finding | None) -> float:
    return 1.0 if finding is None or finding.speed_up is None else finding.speed_up.interval.point


def said(finding: Finding | None) -> str:
    """A cell: a speed-up with its interval."""
    return "–" if finding is None else finding.text


def spread(values: tuple[float, ...]) -> str:
    """
    >>> spread((0.008, 0.008)), spread((0.004, 0.016)), spread(())
    ('0.008', '0.004–0.016', '–')
    """
    if not values:
        return "–"
    low, high = f"{min(values):g}", f"{max(values):g}"
    return low if low == high else f"{low}–{high}"


def speed_up(outcome: AgentTable, device: str) -> Interval:
    """Of the agent over dense."""
    found = next(c for c in outcome.conclusions if c.device == device).over_dense[AGENT].speed_up
    return Interval(1.0, 1.0, 1.0, 0) if found is None else found.interval
