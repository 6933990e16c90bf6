"""The table of the DSRL study: runs of every contender, rows, and the page with its stored form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.comparing.conclusion import CLAIM_SEEDS, LEAST_SEEDS, LEVEL
from analysis.comparing.out import pipes
from analysis.comparing.page import plus_minus
from analysis.stats import Interval, holm, mean_interval, power
from hwsim import InputError
from hwsim.files import replacing

KIND = "agent dsrl"
AGENT, WITHOUT_STATE, DENSE = "DSRL agent", "agent without state", "dense"


@dataclass(frozen=True)
class Runs:
    """Equally long runs of one contender: (episodes,) each, networks in turn within test seeds.

    Attributes:
        metric, score: on test data; the accuracy where the task tells one, else the loss.
        flops, seconds: of the whole run; seconds by device.
        peak_bytes, mean_bytes: of values, gradients, moments and indices over the run. Activations
            are left out: they are the same for all of a width.
        density: mean over layers and decisions.
        rate: base learning rate, in units of the task's own.
    """

    metric: str
    score: Sequence[float]
    flops: Sequence[float]
    seconds: Mapping[str, Sequence[float]]
    peak_bytes: Sequence[float]
    mean_bytes: Sequence[float]
    density: Sequence[float]
    rate: float


@dataclass(frozen=True)
class DsrlRow:
    """A line of the table: means with their deviation over agents, or over episodes of an opponent.

    Everything but score and density is relative to the dense run of the same weights and data.

    Attributes:
        better: score over dense's (loss under it), by judged seed, mean over agents and networks.
        p: of no difference, by Holm's correction over all rows.
    """

    name: str
    score: tuple[float, float]
    density: tuple[float, float]
    flops: tuple[float, float]
    peak_bytes: tuple[float, float]
    mean_bytes: tuple[float, float]
    seconds: dict[str, tuple[float, float]]
    rate: float
    better: Interval
    p: float


@dataclass(frozen=True)
class DsrlTable:
    """All runs, by contender: one `Runs` of each agent, or of an opponent.

    Attributes:
        opponents_density: what static and dynamic opponents keep.
        about: what was learnt and judged, for the page.
    """

    played: Mapping[str, tuple[Runs, ...]]
    opponents_density: float
    about: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.played[DENSE][0].metric

    @cached_property
    def rows(self) -> tuple[DsrlRow, ...]:
        """In the order in which they are shown."""
        dense = self.played[DENSE][0]
        rows = [self._row(name, runs, dense) for name, runs in self.played.items()]
        asked = [row for row in rows if row.name != DENSE]
        p = dict(zip((row.name for row in asked), holm([row.p for row in asked]), strict=True))
        return tuple(dataclasses.replace(row, p=p.get(row.name, 1.0)) for row in rows)

    def _row(self, name: str, runs: tuple[Runs, ...], dense: Runs) -> DsrlRow:
        def over(mine: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
            return np.array(mine) / np.array(theirs)

        sign = -1.0 if self.metric == "loss" else 1.0
        each = int(self.about["episodes"])
        better = sign * (np.mean([r.score for r in runs], 0) - np.array(dense.score))
        interval = mean_interval(better.reshape(each, -1).mean(1).tolist())
        return DsrlRow(
            name,
            _summed([np.array(r.score) for r in runs]),
            _summed([np.array(r.density) for r in runs]),
            _summed([over(r.flops, dense.flops) for r in runs]),
            _summed([over(r.peak_bytes, dense.peak_bytes) for r in runs]),
            _summed([over(r.mean_bytes, dense.mean_bytes) for r in runs]),
            {d: _summed([over(r.seconds[d], s) for r in runs]) for d, s in dense.seconds.items()},
            runs[0].rate, interval, power(interval)[0],
        )  # fmt: skip

    def verdict(self, row: DsrlRow) -> str:
        """Of its score, against dense's."""
        n = row.better.n
        if row.name == DENSE:
            return ""
        if n < LEAST_SEEDS:
            return "too few seeds to say anything"
        few = n < CLAIM_SEEDS or (row.name in (AGENT, WITHOUT_STATE)
                              and int(self.about["agents"]) < CLAIM_SEEDS)  # fmt: skip
        known = f" ({n} seeds{', too few to claim it' if few else ''})"
        if row.p >= LEVEL:
            return f"no difference shown ({n} seeds)"
        return ("better" if row.better.point > 0 else "worse") + known

    def to_json(self) -> dict[str, Any]:
        """Rows, numbers unrounded."""
        return {
            "metric": self.metric, "rows": [dataclasses.asdict(row) for row in self.rows],
            "opponents_density": self.opponents_density, "about": dict(self.about),
        }  # fmt: skip


def _summed(values: list[np.ndarray]) -> tuple[float, float]:
    parts = np.array([v.mean() for v in values]) if len(values) > 1 else values[0]
    return float(parts.mean()), float(parts.std(ddof=1)) if len(parts) > 1 else 0.0


def read_runs(path: Path) -> Runs:
    """Raises an InputError if the file is damaged."""
    try:
        return Runs(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); allowed is to remove it") from None


def write_runs(runs: Runs, path: Path) -> None:
    """Writes a file for `read_runs`, whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(runs)), encoding="utf-8")


@dataclass(frozen=True)
class DsrlPage:
    """A table with what its page says beside it."""

    table: DsrlTable
    title: str
    command: str

    @property
    def page(self) -> str:
        """The page as Markdown."""
        return markdown(self.table, self.title, self.command)

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        runs = {
            name: [dataclasses.asdict(one) for one in own]
            for name, own in self.table.played.items()
        }
        return {
            "kind": KIND, "title": self.title, "command": self.command, "runs": runs,
            "opponents_density": self.table.opponents_density, "about": dict(self.table.about),
        }  # fmt: skip


def loaded(content: Mapping[str, Any]) -> DsrlPage:
    """What `content` told, numbers that are not finite read back.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    played = {
        name: tuple(Runs(**one) for one in own) for name, own in dict(content["runs"]).items()
    }
    table = DsrlTable(played, content["opponents_density"], content["about"])
    return DsrlPage(table, content["title"], content["command"])


def markdown(table: DsrlTable, title: str, command: str) -> str:
    """A page with the table, and what stands behind it."""
    about, devices = table.about, list(table.rows[0].seconds)
    head = ["", f"{table.metric} (test)", "over dense's", "density", "FLOPs", "peak bytes",
            "mean bytes", *(f"net time, {d}" for d in devices), "rate"]  # fmt: skip
    parts = [
        f"# {title}",
        in_short(table),
        f"    {command}",
        f"Agents of each kind: {about['agents']} ({about['algorithm']}, {about['episodes_learnt']} "
        f"episodes each) learnt on {', '.join(about['learnt_on'])}. All are judged on "
        f"{', '.join(about['judged_on'])}, {about['task']}, {about['episodes']} seeds that nobody "
        f"learnt from, {about['steps']} steps; reward `{about['reward']}`, moves of "
        f"{100 * about['points']:g} points of density.",
        pipes(head, [_line(table, row) for row in table.rows]),
        "\n".join(f"- {row.name}: {table.verdict(row)}." for row in table.rows
                  if row.name != DENSE),
        "## To know",
        "\n".join(f"- {note}" for note in notes(table)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def in_short(table: DsrlTable) -> str:
    """The agent beside dense, its ablation and the best of the others, in one paragraph."""
    rows = {row.name: row for row in table.rows}
    agent, blind = rows[AGENT], rows[WITHOUT_STATE]
    others = [row for row in table.rows if row.name not in (AGENT, WITHOUT_STATE, DENSE)]
    best = max(others, key=lambda row: row.better.point)
    times = ", ".join(f"{mean:.2f} on {device}" for device, (mean, _) in agent.seconds.items())
    return (
        f"**Agents train at {100 * agent.density[0]:.0f} % density, with {agent.flops[0]:.2f} of "
        f"dense's FLOPs, {agent.peak_bytes[0]:.2f} of its peak bytes and net times of {times}; "
        f"test {table.metric} {agent.score[0]:.3f} against dense's {rows[DENSE].score[0]:.3f} "
        f"({table.verdict(agent)}).** Without state: {blind.score[0]:.3f} at "
        f"{100 * blind.density[0]:.0f} %. Best of the others: {best.name}, {best.score[0]:.3f} "
        f"with {best.flops[0]:.2f} of the FLOPs."
    )


def notes(table: DsrlTable) -> list[str]:
    """What a reader must know beside the numbers."""
    better = "lower loss" if table.metric == "loss" else table.metric
    tuned = table.about["tuned"]
    rate = (
        "Dense trains at the base rate of its lowest loss on validation data, every other opponent "
        "at that of its best metric there, on other seeds; agents, in learning too, at dense's. "
        "Rates are factors of the task's."
        if tuned else "All train at the task's own rate; it was not tuned, so nothing is claimed."
    )  # fmt: skip
    return [
        f"Static and dynamic opponents keep a density of {100 * table.opponents_density:.3g} %, "
        "the agents' mean unless named; GMP comes down to it along a cubic by the end; narrower "
        "dense has its FLOPs.",
        "± is the deviation over agents, for opponents over episodes. FLOPs, bytes and net times "
        "are relative to the dense run of the same weights and data.",
        f"Over dense's: {better}, mean difference by judged seed with its 95 % interval, + where "
        "it is better; verdicts after Holm's correction over all rows. It leaves the luck of "
        "tuning and learning out.",
        "Bytes are of weights, gradients, moments and indices; activations are left out.",
        rate,
    ]


def cells(row: DsrlRow) -> list[str]:
    """A row as text: name, score, density, FLOPs, bytes, net times."""
    parts = [row.score, row.density, row.flops, row.peak_bytes, row.mean_bytes]
    parts += list(row.seconds.values())
    return [row.name, *(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in parts)]


def _line(table: DsrlTable, row: DsrlRow) -> list[str]:
    name, score, *rest = cells(row)
    better = "–" if row.name == DENSE else plus_minus(row.better, sign=True)
    return [name, score, better, *rest, f"{row.rate:g}"]


def narrow_cells(row: DsrlRow) -> list[str]:
    """A row for a terminal of 80 columns: the deviation of the score alone."""
    name, first, *rest = cells(row)
    return [name, first, *(text.split(" ")[0] for text in rest)]
