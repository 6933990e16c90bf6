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

from analysis.comparing.clocks import Clock, Contender
from analysis.stats import Interval, Ratio, holm
from hwsim import units

DENSE, NARROWER, SPARSE = "dense", "narrower dense", "sparse"
# Seeds without which nothing is said, and without which nothing is claimed.
LEAST_SEEDS, CLAIM_SEEDS = 5, 10
LEVEL = 0.05


class Verdict(StrEnum):
    """What may be said of a contender beside another."""

    FASTER = "faster"
    SLOWER = "slower"
    SEEN = "faster in all that was seen, too few seeds for a claim"
    ALIKE = "not told apart"
    NOT_REACHED = "does not reach it"
    FEW = "too few seeds to say anything"
    UNTUNED = "not tuned as the protocol asks: nothing is claimed"
    NOTHING_LEARNT = "nothing was learnt"


@dataclass(frozen=True)
class Finding:
    """`one` against `other` on a device, in net time to the same loss.

    Attributes:
        seeds: how many, or how many groups of them that depend on each other.
        reached: share of the seeds in which `one` reached the loss.
        speed_up: time of `other` over that of `one`; None if `one` does not reach it.
        at_least: whether `other` does not reach it: the time of its whole run stands for it, so
            that the speed-up is at least this.
        p: of the speed-up, corrected for all that is asked with it; see `corrected`.
        questions: how many are asked with it.
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
    questions: int = 1

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
    def detectable(self) -> float:
        """The speed-up that would have been shown, of so many questions; infinite: not known."""
        return math.inf if self.speed_up is None else self.speed_up.detectable(self.questions)

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
                "high": ratio.interval.high, "p": ratio.p, "detectable": self.detectable,
            },
        }  # fmt: skip


def times(interval: Interval) -> str:
    """
    >>> times(Interval(1.234, 1.1, 1.38, 5))
    '1.23 (1.10–1.38)'
    """
    if interval.n == 1:
        return f"{interval.point:.2f} (one seed)"
    ends = (interval.low, interval.high)
    low, high = (f"{end:.2f}" if 0 < end < math.inf else "0" if end == 0 else "∞" for end in ends)
    return f"{interval.point:.2f} ({low}–{high})"


def against(one: Contender, other: Contender, device: str, clock: Clock) -> Finding:
    """What the runs of both say; p is not corrected yet."""
    found = clock.beside(one, other)
    return Finding(
        one.name, other.name, device, found.seeds, found.reached, found.speed_up, found.at_least,
        1.0 if found.speed_up is None else found.speed_up.p,
        one.learnt is not False and other.learnt is not False, one.tuned and other.tuned,
    )  # fmt: skip


@dataclass(frozen=True)
class Conclusion:
    """What the runs say of one device.

    Attributes:
        target: what was to be reached, in words.
        findings: contender → against dense, and against the best narrower dense model.
        narrower: that model; "" if none reaches the loss.
        over_known: further sparse contenders → against the best known one.
        subject: whom the sentence is about; "" for the fastest sparse contender.
        beside: all others → the subject against each.
        times_s: contender → net seconds to the loss; NaN if it does not reach it.
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
        """The fastest contender that reaches the loss; "" if none does."""
        return self._fastest(tuple(self.over_dense))

    @property
    def best_sparse(self) -> str:
        """The subject, or the fastest sparse contender that reaches the loss; "" if none does."""
        sparse = tuple(n for n in self.over_dense if self.kinds[n] == SPARSE)
        return self.subject or self._fastest(sparse)

    def _fastest(self, names: Sequence[str]) -> str:
        """Of those with a speed-up over dense, surely above 0 if one's is; "" if none has one."""
        found = {
            name: (speed_up.interval.low > 0, speed_up.interval.point) for name in names
            if (speed_up := self.over_dense[name].speed_up) is not None
        }  # fmt: skip
        return max(found, key=lambda name: found[name], default="")

    @property
    def sentence(self) -> str:
        """Who wins, by how much, and how sure; never more than the findings allow."""
        best = self.best_sparse
        if not best:
            return f"On {self.device} no sparse contender reaches {self.target}."
        dense, narrow = self.over_dense[best], self.over_narrower.get(best)
        text = f"On {self.device} {best} reaches {self.target} {_said(dense)}"
        if narrow is not None:
            text += f", and {_said(narrow)}"
        elif not self.narrower:
            text += "; no narrower dense model reaches it"
        return text + "." + self._new

    @property
    def line(self) -> str:
        """The same on one line: the best sparse contender over dense and the best narrower."""
        best = self.best_sparse
        if not best:
            return f"{self.device}: no sparse contender reaches it"
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
        first = self._fastest(tuple(whole))
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
        return f"not ({finding.other})"
    seeds = f"{finding.seeds} seed{'s' if finding.seeds > 1 else ''}"
    late = f", reached in {units.percent(finding.reached)}" if finding.reached < 1 else ""
    text = f"{finding.text} times as fast as {finding.other} ({seeds}{late}: {finding.verdict}"
    if finding.verdict == Verdict.ALIKE and math.isfinite(finding.detectable):
        text += f"; {finding.detectable:.2f} would have shown"
    return text + ")"


def conclude(
    contenders: Sequence[Contender], device: str, clock: Clock, target: str, *, subject: str = "",
) -> Conclusion:  # fmt: skip
    """Every contender against dense and against the best narrower dense model on one device.

    The best narrower model is the fastest of those that surely reach the loss, or else of those
    that reach it, chosen on the same seeds, which favours it.

    Args:
        contenders: a dense one among them.
        clock: how times to the loss are taken.
        target: that loss in words.
        subject: a contender's name: the sentence is about it, and it is held against all others.
    """
    dense = next(c for c in contenders if c.kind == DENSE)
    seconds = {c.name: clock.time(c) for c in contenders}

    def fastest(some: Iterable[Contender]) -> Contender | None:
        reach = [c for c in some if seconds[c.name] > 0]
        return min(reach, key=lambda c: (not clock.surely(c), seconds[c.name]), default=None)

    best = fastest(c for c in contenders if c.kind == NARROWER)
    rigls = [c for c in contenders if c.known]
    known = fastest(rigls) or next(iter(rigls), None)
    rest = [c for c in contenders if c is not dense]
    about = next((c for c in contenders if c.name == subject), None)
    return Conclusion(
        device, target,
        {c.name: against(c, dense, device, clock) for c in rest},
        {} if best is None else {
            c.name: against(c, best, device, clock) for c in rest if c.kind == SPARSE
        },
        "" if best is None else best.name, seconds, {c.name: c.kind for c in contenders},
        {} if known is None else {
            c.name: against(c, known, device, clock)
            for c in rest if c.kind == SPARSE and not c.known
        },
        subject,
        {} if about is None else {
            # What dense and the best narrower model are to it stands above.
            c.name: against(about, c, device, clock)
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
        return {
            n: replace(f, p=p_values.get(id(f), 1.0), questions=max(len(asked), 1))
            for n, f in findings.items()
        }

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
