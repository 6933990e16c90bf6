"""Net time of a whole run on a cluster: the price of every step, added up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cluster.machine import Cluster
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.step import ClusterStep, timed
from hwsim.errors import InputError
from hwsim.workload import Workload


@dataclass(frozen=True)
class ClusterRun:
    """A run under one plan.

    Attributes:
        seconds, steps: in all.
        sent_bytes: by the card of the first stage that sends most.
        fullest: the step whose cards must hold most.
    """

    seconds: float
    steps: int
    sent_bytes: float
    fullest: ClusterStep

    @property
    def fits(self) -> bool:
        """Whether the step that needs most memory fits the cards."""
        return self.fullest.fits


def run_time(
    cluster: Cluster, pairs: Iterable[tuple[Workload, int]], plan: ParallelPlan
) -> ClusterRun:
    """The price of a whole run; equal steps are priced once.

    Args:
        pairs: (workload of one card's step, how many such steps), as `TrainingRecord.pairs` gives
            them: with masks as they changed, growth steps among them.

    Raises:
        InputError: no steps, a number of steps that is no integer of at least 0, or a plan that
            `cluster_step` refuses.
    """
    known: dict[str, ClusterStep] = {}
    shares: dict[tuple, Any] = {}
    seconds = sent = 0.0
    number = 0
    kept = []  # shares are known by the masks' identity, so that these must live
    for workload, steps in pairs:
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
            raise InputError(f"steps: value is {steps!r}; allowed is an integer of at least 0")
        if not steps:
            continue
        digest = workload.digest
        if digest not in known:
            kept.append(workload)
            known[digest] = timed(cluster, parts_of(workload), plan, shares)
        seconds += known[digest].seconds * int(steps)
        sent += known[digest].sent_bytes * int(steps)
        number += int(steps)
    if not known:
        raise InputError("pairs: no steps; allowed is at least one")
    fullest = max(known.values(), key=lambda step: step.need.total)
    return ClusterRun(seconds, number, sent, fullest)
