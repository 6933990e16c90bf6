"""Who reaches the same loss in less net time, by how much, and how sure that is.

One protocol for every comparison: `compare`, the demo, agents and plans make their conclusions
here, from courses of runs, and word them by these verdicts alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from analysis.stats import Interval, Ratio, holm, paired_ratio
from hwsim import units
from hwsim.net_time import time_to_target

DENSE, NARROWER, SPARSE = "dense", "narrower dense", "sparse"
# Seeds without which nothing is said, and without which nothing is claimed.
LEAST_SEEDS, CLAIM_SEEDS = 5, 10
LEVEL = 0.05


@dataclass(frozen=True)
class Course:
    """One run: net seconds and loss at each of its validations, (evaluations,)."""

    seconds: Sequence[float]
    losses: Sequence[float]

    def time_to(self, target: float) -> float:
        """Net seconds to a loss; infinite if it is never reached."""
        known = np.isfinite(self.losses)
        if not known.any():
            return math.inf
        seconds, losses = np.asarray(self.seconds)[known], np.asarray(self.losses)[known]
        found = time_to_target(seconds, losses, target)  # type: ignore[bad-argument-type]
        return math.inf if found is None else found

    @property
    def end(self) -> float:
        """Net seconds of the whole run."""
        return float(self.seconds[-1])

    def loss_at(self, share: float) -> float:
        """The lowest loss within the first `share` of the run's net time."""
        seconds, best = np.asarray(self.seconds), np.minimum.accumulate(self.losses)
        return float(best[seconds <= share * seconds[-1] * (1 + 1e-9)][-1])


@dataclass(frozen=True)
class Contender:
    """What is compared: a kind (DENSE, NARROWER, SPARSE) and seed → course.

    Attributes:
        learnt: whether it is better than a predictor that looks at no input; None: not known.
        tuned: whether its rate was chosen as the protocol asks.
        known: whether it is what new ideas are held against: RigL as it was published.
    """

    name: str
    kind: str
    courses: Mapping[int, Course]
    learnt: bool | None = None
    tuned: bool = True
    known: bool = False

    def times(self, targets: Mapping[int, float]) -> dict[int, float]:
        """Seed → net seconds to the seed's target, infinite where it is not reached."""
        return {s: c.time_to(targets[s]) for s, c in self.courses.items() if s in targets}

    def missed(self, times: Mapping[int, float]) -> set[int]:
        """Seeds of `times` in which the target was not reached."""
        return {seed for seed, seconds in times.items() if not math.isfinite(seconds)}


@dataclass(frozen=True)
class Clocked(Contender):
    """One whose times were taken to one target, so that no course is needed.

    Attributes:
        seconds: seed → net seconds to its target; where that was not reached within the budget,
            what was left is charged in some way, and the seed stands in `late`.
    """

    seconds: Mapping[int, float] = field(default_factory=dict)
    late: frozenset[int] = frozenset()

    def times(self, targets: Mapping[int, float]) -> dict[int, float]:
        return {seed: t for seed, t in self.seconds.items() if seed in targets}

    def missed(self, times: Mapping[int, float]) -> set[int]:
        return set(times) & self.late


class Verdict(StrEnum):
    """What may be said of a contender beside another."""

    FASTER = "faster"
    SLOWER = "slower"
    SEEN = "faster in all that was seen, too few seeds for a claim"
    ALIKE = "not told apart"
    NOT_REACHED = "does not reach it in every seed"
    FEW = "too few seeds to say anything"
    UNTUNED = "not tuned as the protocol asks: nothing is claimed"
    NOTHING_LEARNT = "nothing was learnt"


@dataclass(frozen=True)
class Finding:
    """`one` against `other` on a device, in net time to the same loss.

    Attributes:
        seeds: how many, or how many groups of them that depend on each other.
        reached: share of the seeds in which `one` reached the loss.
        speed_up: time of `other` over that of `one`; None unless `one` always reached it.
        at_least: whether `other` did not reach it in some seed: the time of its whole run stands
            for it there, so that the speed-up is at least this.
        p: of the speed-up, corrected for all that is asked with it; see `corrected`.
        learnt, tuned: of both.
    """

    one: str
    other: str
    device: str
    seeds: int
    reached: float
    speed_up: Ratio | None
    at_least: bool = False
    p: float = 1.0
    learnt: bool = True
    tuned: bool = True

    @property
    def verdict(self) -> Verdict:
        """What may be said of it: no more than seeds, tuning and correction allow."""
        if not self.learnt:
            return Verdict.NOTHING_LEARNT
        if self.seeds < LEAST_SEEDS:
            return Verdict.FEW
        if self.speed_up is None:
            return Verdict.NOT_REACHED
        if not self.tuned:
            return Verdict.UNTUNED
        interval = self.speed_up.interval
        if interval.low > 1 and self.p < LEVEL:
            return Verdict.FASTER if self.seeds >= CLAIM_SEEDS else Verdict.SEEN
        if interval.high < 1 and self.p < LEVEL and not self.at_least:
            return Verdict.SLOWER
        return Verdict.ALIKE

    @property
    def text(self) -> str:
        """The speed-up with its interval, and in how many seeds the loss was reached."""
        if self.speed_up is None:
            return f"reached in {units.percent(self.reached)}"
        return ("≥ " if self.at_least else "") + times(self.speed_up.interval)

    def to_json(self) -> dict[str, Any]:
        """The finding with its interval and verdict."""
        ratio = self.speed_up
        return {
            "one": self.one, "other": self.other, "device": self.device, "seeds": self.seeds,
            "reached": self.reached, "at_least": self.at_least, "p_holm": self.p,
            "verdict": str(self.verdict),
            "speed_up": None if ratio is None else {
                "point": ratio.interval.point, "low": ratio.interval.low,
                "high": ratio.interval.high, "p": ratio.p, "detectable": ratio.detectable,
            },
        }  # fmt: skip


def times(interval: Interval) -> str:
    """
    >>> times(Interval(1.234, 1.1, 1.38, 5))
    '1.23 (1.10–1.38)'
    """
    if interval.n == 1:
        return f"{interval.point:.2f} (one seed)"
    return f"{interval.point:.2f} ({interval.low:.2f}–{interval.high:.2f})"


def against(
    one: Contender, other: Contender, device: str, targets: Mapping[int, float],
    groups: Mapping[int, int] | None = None,
) -> Finding:  # fmt: skip
    """What the runs of both say; p is not corrected yet.

    Args:
        groups: seed → its group. Seeds of a group share their tuning or their agent: each group
            counts once, by its geometric mean.
    """
    mine, theirs = one.times(targets), other.times(targets)
    common = sorted(set(mine) & set(theirs))
    missed = one.missed({seed: mine[seed] for seed in common})
    share = 1 - len(missed) / len(common) if common else 0.0
    never = [seed for seed in common if not math.isfinite(theirs[seed])]
    count, ratio = len({(groups or {}).get(seed, seed) for seed in common}), None
    if common and all(math.isfinite(mine[seed]) for seed in common):
        full = {s: other.courses[s].end if s in never else theirs[s] for s in common}
        if all(value > 0 for value in (*full.values(), *mine.values())):
            ratio = paired_ratio(_by_group(full, groups),
                                 _by_group({s: mine[s] for s in common}, groups))  # fmt: skip
    return Finding(
        one.name, other.name, device, count, share, ratio, bool(never),
        1.0 if ratio is None else ratio.p,
        one.learnt is not False and other.learnt is not False, one.tuned and other.tuned,
    )  # fmt: skip


def _by_group(times: Mapping[int, float], groups: Mapping[int, int] | None) -> dict[int, float]:
    """Geometric mean of each group."""
    if groups is None:
        return dict(times)
    found: dict[int, list[float]] = {}
    for seed, seconds in times.items():
        found.setdefault(groups[seed], []).append(math.log(seconds))
    return {group: math.exp(sum(logs) / len(logs)) for group, logs in found.items()}


@dataclass(frozen=True)
class Conclusion:
    """What the runs say of one device.

    Attributes:
        target: what was to be reached, in words.
        findings: contender → against dense, and against the best narrower dense model.
        narrower: that model; "" if none reached the loss in every seed.
        over_known: further sparse contenders → against the best known one.
        subject: whom the sentence is about; "" for the fastest sparse contender.
        beside: all others → the subject against each.
        times_s: contender → mean net seconds of the seeds that reached it; NaN if none did.
    """

    device: str
    target: str
    over_dense: Mapping[str, Finding]
    over_narrower: Mapping[str, Finding]
    narrower: str
    times_s: Mapping[str, float]
    kinds: Mapping[str, str]
    over_known: Mapping[str, Finding] = field(default_factory=dict)
    subject: str = ""
    beside: Mapping[str, Finding] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """All that is asked on this device."""
        parts = (self.over_dense, self.over_narrower, self.over_known, self.beside)
        return [finding for part in parts for finding in part.values()]

    @property
    def winner(self) -> str:
        """The fastest contender that reached the loss in every seed; "" if none did."""
        return self._fastest(tuple(self.over_dense))

    @property
    def best_sparse(self) -> str:
        """The subject, or the fastest sparse contender that reached the loss in every seed.

        "" if none did.
        """
        sparse = tuple(n for n in self.over_dense if self.kinds[n] == SPARSE)
        return self.subject or self._fastest(sparse)

    def _fastest(self, names: Sequence[str]) -> str:
        """Of those with a speed-up over dense; "" if none has one."""
        points = {
            name: speed_up.interval.point for name in names
            if (speed_up := self.over_dense[name].speed_up) is not None
        }  # fmt: skip
        return max(points, key=lambda name: points[name], default="")

    @property
    def sentence(self) -> str:
        """Who wins, by how much, and how sure; never more than the findings allow."""
        best = self.best_sparse
        if not best:
            return f"On {self.device} no sparse contender reaches {self.target} in every seed."
        dense, narrow = self.over_dense[best], self.over_narrower.get(best)
        text = f"On {self.device} {best} reaches {self.target} {_said(dense)}"
        if narrow is not None:
            text += f", and {_said(narrow)}"
        elif not self.narrower:
            text += "; no narrower dense model reaches it in every seed"
        return text + "." + self._new

    @property
    def line(self) -> str:
        """The same on one line: the best sparse contender over dense and the best narrower."""
        best = self.best_sparse
        if not best:
            return f"{self.device}: no sparse contender reaches it in every seed"
        dense, narrow = self.over_dense[best], self.over_narrower.get(best)
        text = f"{self.device}: {best} over dense {dense.text}, {dense.verdict}"
        if narrow is not None:
            text += f"; over {narrow.other} {narrow.text}, {narrow.verdict}"
        return text

    @property
    def _new(self) -> str:
        """The fastest of the others beside RigL."""
        whole = {
            n: f for n, f in self.over_known.items()
            if f.speed_up is not None and self.subject in ("", n)
        }  # fmt: skip
        if not whole:
            return ""
        first = max(whole, key=lambda n: whole[n].speed_up.interval.point)  # type: ignore
        if whole[first].verdict in (Verdict.FASTER, Verdict.SEEN, Verdict.FEW):
            return f" {first} is {_said(whole[first])}."
        return f" None is shown faster than {whole[first].other}: {first} is {_said(whole[first])}."

    def to_json(self) -> dict[str, Any]:
        """The conclusion and its findings."""
        return {
            "device": self.device, "target": self.target, "winner": self.winner,
            "best_narrower": self.narrower, "sentence": self.sentence,
            "seconds": dict(self.times_s), "findings": [f.to_json() for f in self.findings],
        }  # fmt: skip


def _said(finding: Finding) -> str:
    if finding.speed_up is None:
        return f"not in every seed ({finding.other})"
    seeds = f"{finding.seeds} seed{'s' if finding.seeds > 1 else ''}"
    late = f", reached in {units.percent(finding.reached)}" if finding.reached < 1 else ""
    text = f"{finding.text} times as fast as {finding.other} ({seeds}{late}: {finding.verdict}"
    if finding.verdict == Verdict.ALIKE:
        text += f"; {finding.speed_up.detectable:.2f} would have shown"
    return text + ")"


def conclude(
    contenders: Sequence[Contender], device: str, targets: Mapping[int, float], target: str, *,
    groups: Mapping[int, int] | None = None, subject: str = "",
) -> Conclusion:  # fmt: skip
    """Every contender against dense and against the best narrower dense model on one device.

    The best narrower model is the fastest of those that reach the loss in every seed, chosen on
    the same seeds, which favours it.

    Args:
        contenders: a dense one among them.
        targets: seed → the loss to be reached.
        target: these in words.
        groups: see `against`.
        subject: a contender's name: the sentence is about it, and it is held against all others.
    """
    dense = next(c for c in contenders if c.kind == DENSE)
    seconds, whole = {}, {}
    for c in contenders:
        found = list(c.times(targets).values())
        finite = [s for s in found if math.isfinite(s)]
        seconds[c.name] = float(np.mean(finite)) if finite else math.nan
        if c.kind == NARROWER and found and len(finite) == len(found) and min(finite) > 0:
            whole[c.name] = float(np.mean(np.log(finite)))
    narrow = min(whole, key=lambda n: whole[n], default="")
    known = min(
        (c for c in contenders if c.known and math.isfinite(seconds[c.name])),
        key=lambda c: seconds[c.name], default=None,
    )  # fmt: skip
    best = next((c for c in contenders if c.name == narrow), None)
    rest = [c for c in contenders if c is not dense]
    about = next((c for c in contenders if c.name == subject), None)
    return Conclusion(
        device, target,
        {c.name: against(c, dense, device, targets, groups) for c in rest},
        {} if best is None else {
            c.name: against(c, best, device, targets, groups) for c in rest if c.kind == SPARSE
        },
        narrow, seconds, {c.name: c.kind for c in contenders},
        {} if known is None else {
            c.name: against(c, known, device, targets, groups)
            for c in rest if c.kind == SPARSE and not c.known
        },
        subject,
        {} if about is None else {
            # What dense and the best narrower model are to it stands above.
            c.name: against(about, c, device, targets, groups)
            for c in rest if c is not about and c is not best and c is not known
        },
    )  # fmt: skip


def corrected(conclusions: Iterable[Conclusion]) -> list[Conclusion]:
    """The same with Holm's correction over everything that they ask together."""
    every = list(conclusions)
    asked = [f for c in every for f in c.findings if f.speed_up is not None]
    p_values = dict(
        zip(map(id, asked), holm([f.speed_up.p for f in asked if f.speed_up]), strict=True)
    )

    def put(findings: Mapping[str, Finding]) -> dict[str, Finding]:
        return {n: replace(f, p=p_values.get(id(f), 1.0)) for n, f in findings.items()}

    return [
        replace(
            c,
            over_dense=put(c.over_dense),
            over_narrower=put(c.over_narrower),
            over_known=put(c.over_known),
            beside=put(c.beside),
        )
        for c in every
    ]


@dataclass(frozen=True)
class Forecast:
    """What a law says of `one` against `other` on a device: no run stands behind it.

    Attributes:
        speed_up: net time in which `other` gets to the loss of `one`, over that of `one`; above
            the interval's high end infinite where `other` never gets there.
        beyond: in which respects the law was asked beyond its points.
    """

    one: str
    other: str
    device: str
    speed_up: Interval
    beyond: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Faster or slower where the whole interval is."""
        if self.speed_up.low > 1:
            return Verdict.FASTER
        return Verdict.SLOWER if self.speed_up.high < 1 else Verdict.ALIKE

    @property
    def sentence(self) -> str:
        """The forecast with its interval, and whether it lies beyond the law's points."""
        i = self.speed_up
        ends = f"{i.low:.2f}–" + (f"{i.high:.2f}" if math.isfinite(i.high) else "∞")
        said = "infinitely" if not math.isfinite(i.point) else f"{i.point:.2f} ({ends}) times"
        text = f"On {self.device}, by the law, {self.one} is {said} as fast as {self.other}: "
        text += str(self.verdict)
        if self.beyond:
            text += f" (asked beyond the law's points: {', '.join(self.beyond)})"
        return text + "."
