"""What a report compares: runs, with their losses, net times, densities and step costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsim import InputError

# The part of a label that decides its colour, in the order in which contenders are listed.
FAMILIES = ("dense", "narrower dense", "static", "set", "rigl", "other")


@dataclass(frozen=True)
class Seconds:
    """Net training time up to each evaluation, with its interval: arrays of one length."""

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class ReportedRun:
    """One training run, ready to be compared.

    Attributes:
        name: its label in every table and figure.
        family: one of FAMILIES: its colour.
        density: active share of the weights under masks; 1 without masks.
        steps, losses: of each evaluation on the validation set, (evaluations,).
        seconds: device → net seconds at each of these evaluations.
        train_steps, train_losses: of the training batches.
        density_steps, densities: (changes,) and layer → (changes,); empty without masks.
        layers: device → layer → phase → seconds of the run's last training step.
        facts: what to know of the run: (name, value) pairs.
        verified: device → whether all of its prices have been held against real kernels.
    """

    name: str
    family: str
    density: float
    steps: np.ndarray
    losses: np.ndarray
    seconds: dict[str, Seconds]
    train_steps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    train_losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    density_steps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    densities: dict[str, np.ndarray] = field(default_factory=dict)
    layers: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    verified: dict[str, bool] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        """The lowest finite one; infinite if there is none."""
        finite = self.losses[np.isfinite(self.losses)]
        return float(finite.min()) if len(finite) else float("inf")

    @property
    def improved(self) -> bool:
        """Whether a validation after the first was better: a run that diverged at once has none."""
        return bool(self.best_loss < self.losses[0])

    @property
    def last_loss(self) -> float:
        """At the last validation."""
        return float(self.losses[-1])


@dataclass(frozen=True)
class Reached:
    """Net seconds at which a loss was reached; the interval spans what is not known.

    The loss fell below the target somewhere between two evaluations, and each price has an
    interval of its own: low is the earlier evaluation at the low price, high the later one at
    the high price.
    """

    seconds: float
    low: float
    high: float


def time_to(contender: ReportedRun, device: str, loss: float) -> Reached | None:
    """When the best validation loss so far first was `loss` or lower; None if never.

    Between two evaluations the best loss is taken to fall in a straight line.
    """
    if device not in contender.seconds:
        raise InputError(f"device {device!r} has no times of {contender.name!r}")
    times = contender.seconds[device]
    losses = np.where(np.isfinite(contender.losses), contender.losses, np.inf)
    best = np.minimum.accumulate(losses)
    reached = np.flatnonzero(best <= loss)
    if len(reached) == 0:
        return None
    at = int(reached[0])
    if at == 0:
        return Reached(float(times.expected[0]), float(times.low[0]), float(times.high[0]))
    above, below = best[at - 1], best[at]
    flat = above == below or not np.isfinite(above)
    share = 1.0 if flat else float((above - loss) / (above - below))
    before, after = float(times.expected[at - 1]), float(times.expected[at])
    return Reached(
        before + share * (after - before), float(times.low[at - 1]), float(times.high[at])
    )


def common_loss(contenders: Sequence[ReportedRun]) -> float:
    """The lowest loss that every contender reaches: the worst of their best.

    Of those that got better at all; where none did, the lowest there is.
    """
    found = [c.best_loss for c in contenders if c.improved]
    return max(found) if found else min(c.best_loss for c in contenders)


def reference(contenders: Sequence[ReportedRun]) -> ReportedRun | None:
    """What the others are measured against: the first dense run of full width."""
    return next((c for c in contenders if c.family == "dense"), None)


def devices_of(contenders: Sequence[ReportedRun]) -> tuple[str, ...]:
    """The devices that every contender has times on, in the first one's order."""
    return tuple(
        name for name in contenders[0].seconds if all(name in c.seconds for c in contenders)
    )


@dataclass(frozen=True)
class TimesToLoss:
    """Net time of every contender to one loss on one device."""

    device: str
    loss: float
    times: dict[str, Reached | None]

    @property
    def order(self) -> list[str]:
        """Names of those that reach the loss, the fastest first."""
        reached = {name: t.seconds for name, t in self.times.items() if t is not None}
        return sorted(reached, key=lambda name: reached[name])

    def relative(self, name: str, to: str) -> float | None:
        """Time of `name` over time of `to`; None if either never gets there."""
        one, other = self.times[name], self.times.get(to)
        return one.seconds / other.seconds if one and other and other.seconds else None


def compare(contenders: Sequence[ReportedRun], device: str, loss: float) -> TimesToLoss:
    """Net seconds that each contender takes to a validation loss on a device."""
    return TimesToLoss(device, loss, {c.name: time_to(c, device, loss) for c in contenders})


def verdicts(contenders: Sequence[ReportedRun], loss: float) -> list[str]:
    """One honest sentence per device: who reaches `loss` first, and by how much."""
    return [_verdict(contenders, compare(contenders, d, loss)) for d in devices_of(contenders)]


def _verdict(contenders: Sequence[ReportedRun], c: TimesToLoss) -> str:
    from hwsim.units import ratio

    families = {one.name: one.family for one in contenders}
    if not c.order:
        return f"On {c.device} no contender reaches loss {c.loss:.3f}."
    first = c.order[0]
    fastest = c.times[first]
    if fastest is not None and fastest.seconds == 0:
        return f"On {c.device} loss {c.loss:.3f} is there before training: nothing was learnt."
    text = f"On {c.device} {_called(first, families)} reaches loss {c.loss:.3f} first"
    base = reference(contenders)
    if base is not None and first != base.name:
        share = c.relative(first, base.name)
        text += f", in {ratio(share)} the time of dense" if share else " (dense never does)"
    rivals = [n for n in c.order if _sparse(families[n]) != _sparse(families[first])]
    if rivals:
        rival = rivals[0]
        times = (c.times[rival], c.times[first])
        assert times[0] is not None and times[1] is not None
        text += (
            f"; the fastest {'sparse' if _sparse(families[rival]) else 'dense'} contender, "
            f"{_called(rival, families)}, takes "
            f"{ratio(times[0].seconds / times[1].seconds)} as long"
        )
        if times[0].low <= times[1].high:
            text += " (the two intervals overlap: too close to call)"
    elif not _sparse(families[first]) and any(_sparse(f) for f in families.values()):
        text += "; no sparse contender reaches it"
    tail = "" if _sparse(families[first]) else " Sparse does not win here."
    return text + "." + tail


def _sparse(family: str) -> bool:
    return family not in ("dense", "narrower dense")


def _called(name: str, families: dict[str, str]) -> str:
    return name if _sparse(families[name]) else f"the {name} model"
