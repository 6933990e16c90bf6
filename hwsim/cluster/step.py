"""A training step on a cluster: its tasks, when they end, and what a card must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cluster.costs import Costs, costs
from hwsim.cluster.data_parallel import ALONE
from hwsim.cluster.fast import ends
from hwsim.cluster.forms import pipeline
from hwsim.cluster.machine import Cluster
from hwsim.cluster.memory import Need, need
from hwsim.cluster.parts import Part, parts_of
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.streams import COMPUTE, Ends, Stage
from hwsim.cluster.tasks import TICKS_PER_S, Tasks
from hwsim.errors import InputError
from hwsim.workload import Workload


@dataclass(frozen=True)
class ClusterStep:
    """One step of a plan.

    Attributes:
        seconds: from its start to the end of its last task.
        compute_s: of the busiest card, collectives apart.
        sent_bytes: by the card of the first stage that sends most.
        need: bytes of the fullest card.
        fits: whether that is within a card's memory.
    """

    plan: ParallelPlan
    seconds: float
    compute_s: float
    sent_bytes: float
    need: Need
    fits: bool
    tasks: Tasks
    ends: np.ndarray

    @property
    def exposed_s(self) -> float:
        """Seconds in which the busiest card computes nothing."""
        return self.seconds - self.compute_s


def cluster_step(cluster: Cluster, step: Workload, plan: ParallelPlan) -> ClusterStep:
    """What a step takes: `step` is one card's, of one micro-batch, not shared out.

    Raises:
        InputError: more cards than there are, heads or layers that the plan does not divide.
    """
    return timed(cluster, parts_of(step), plan)


def timed(
    cluster: Cluster,
    parts: Sequence[Part],
    plan: ParallelPlan,
    known: dict[tuple, Any] | None = None,
) -> ClusterStep:
    """`cluster_step` of parts that were told apart before.

    Args:
        known: shared between calls with the same cluster and parts: what parts' shares cost.
    """
    if plan.cards != cluster.cards:
        raise InputError(
            f"parallel: {plan} has {plan.cards} cards; allowed is {cluster.cards}, those of "
            f"{cluster.name}"
        )
    plan = plan.on(cluster.cards_per_node)
    of_parts = costs(cluster, parts, plan, {} if known is None else known)
    return laid_out(cluster, plan, of_parts, need(parts, plan, cluster.device))


def laid_out(
    cluster: Cluster, plan: ParallelPlan, of_parts: list[Costs], held: Need
) -> ClusterStep:
    """`timed` where a plan's costs and needs are known."""
    tasks = Tasks()
    stages = (_one_stage if plan.pp == 1 else _stages)(cluster, plan, of_parts, tasks)
    done = ends(tasks)
    busy = np.zeros(len(tasks.streams))
    np.add.at(busy, tasks.stream, tasks.ticks)
    compute = max(b for b, s in zip(busy, tasks.streams, strict=True) if s.endswith(COMPUTE))
    return ClusterStep(
        plan, float(done.max()) / TICKS_PER_S, compute / TICKS_PER_S, max(stages[0].sent), held,
        held.total <= cluster.memory_bytes, tasks, done,
    )  # fmt: skip


def at_least_s(plan: ParallelPlan, of_parts: Sequence[Costs]) -> float:
    """Seconds that no order of a step's tasks beats: what the busiest stage must do in turn.

    Before a stage's first micro-batch others pass it forward, after its last they pass it back.
    """
    pieces, most = _pieces(plan, of_parts), 0
    for rank in range(max((len(cost.shares) for cost in of_parts), default=1)):
        there = [sum(_forward(cost, rank) for cost in piece) for piece in pieces]
        back = [sum(_backward(cost, rank) for cost in piece) for piece in pieces]
        for s in range(plan.pp):
            mine = [cost for piece in pieces[s :: plan.pp] for cost in piece]
            work = plan.micro_batches * (sum(there[s :: plan.pp]) + sum(back[s :: plan.pp]))
            update = _ticks(sum(cost.of(rank).update_s for cost in mine))
            most = max(most, sum(there[:s]) + work + max(sum(back[:s]), update))
    return most / TICKS_PER_S


def _ticks(seconds: float) -> int:
    return round(seconds * TICKS_PER_S)


def _forward(cost: Costs, rank: int) -> int:
    own = cost.of(rank)
    whole = _ticks(own.forward_s + own.unpack_s[0] + own.slowed_s[0])
    return whole + cost.exchanges * _ticks(cost.exchange_s)


def _backward(cost: Costs, rank: int) -> int:
    own = cost.of(rank)
    whole = _ticks(own.backward_s + own.unpack_s[1] + own.slowed_s[1] - own.beside_s)
    sums = cost.exchanges * _ticks(cost.exchange_s)
    return whole + cost.again * _ticks(cost.exchange_s) + max(sums, _ticks(own.beside_s))


def _pieces(plan: ParallelPlan, costs: Sequence[Costs]) -> list[list[Costs]]:
    """What each stage holds, piece by piece; the first and the last have what is no layer."""
    if plan.pp == 1:
        return [list(costs)]
    found = [list(costs[1 + a : 1 + b])
             for a, b in pipeline.bounds(len(costs) - 2, plan.pp, plan.interleave)]  # fmt: skip
    return [[costs[0], *found[0]], *found[1:-1], [*found[-1], costs[-1]]]


def _one_stage(
    cluster: Cluster, plan: ParallelPlan, costs: list[Costs], tasks: Tasks
) -> list[Stage]:
    stage = Stage(cluster, plan, tasks, "card", costs)
    rule = plan.rule if plan.dp > 1 else ALONE
    last_block = len(costs) - 2
    reduced: list[Ends] = []
    for micro in range(plan.micro_batches):
        done: list[Ends] = []
        for i, cost in enumerate(costs):
            waits = []
            if rule.before_forward and cost.part.weights:
                # Two parts' weights are gathered at most; what is computed last makes room.
                room = done[i - 2] if i >= 2 else stage.last
                waits = [stage.gather(cost, [room])]
            done.append(stage.forward(cost, waits))
        backs: list[Ends] = []
        order = list(range(len(costs)))[::-1]
        gathered: dict[int, Ends] = {}
        for place, i in enumerate(order):
            cost = costs[i]
            # The next part's weights are asked for before this part's gradients are sent.
            for j in order[place : place + 2]:
                kept = j >= last_block or j == 0
                again = rule.before_backward and costs[j].part.weights and not kept
                if again and j not in gathered:
                    room = backs[-1] if backs else stage.last
                    gathered[j] = stage.gather(costs[j], [room])
            backs.append(stage.backward(cost, [gathered[i]] if i in gathered else []))
            every = plan.sharded >= 2 and plan.dp > 1
            due = rule.after_backward and (every or micro == plan.micro_batches - 1)
            if due and cost.part.weights:
                reduced.append(stage.reduce(cost.part.name, [cost], [backs[-1]]))
    stage.update(costs, reduced[-1:])
    return [stage]


def _stages(cluster: Cluster, plan: ParallelPlan, costs: list[Costs], tasks: Tasks) -> list[Stage]:
    """Each stage's cards; micro-batches go from stage to stage and back."""
    chunks, stages = plan.interleave, plan.pp
    pieces = _pieces(plan, costs)
    carried = max((c.part.boundary_bytes for c in costs), default=0.0)
    hop, carried = pipeline.handed_on(cluster, plan, carried)
    cards = [Stage(cluster, plan, tasks, f"stage-{s}", costs) for s in range(stages)]
    todo = [pipeline.order(s, stages, plan.micro_batches, chunks) for s in range(stages)]
    arrived: dict[tuple[str, int, int], Ends] = {}
    at = [0] * stages
    moved = True
    while moved:
        moved = False
        for s, card in enumerate(cards):
            while at[s] < len(todo[s]):
                kind, micro, chunk = todo[s][at[s]]
                piece = chunk * stages + s
                first = (kind == "F" and piece == 0) or (kind == "B" and piece == len(pieces) - 1)
                if not first and (kind, micro, piece) not in arrived:
                    break
                waits = [arrived[kind, micro, piece]] if not first else []
                run = pieces[piece] if kind == "F" else pieces[piece][::-1]
                for cost in run:
                    (card.forward if kind == "F" else card.backward)(cost, waits)
                    waits = []
                to = piece + (1 if kind == "F" else -1)
                if 0 <= to < len(pieces):
                    back = " back" if kind == "B" else ""
                    label = f"{kind}{micro} to {to}"
                    arrived[kind, micro, to] = card.send(label, hop, carried, back)
                at[s] += 1
                moved = True
    rule = plan.rule if plan.dp > 1 else ALONE
    for s, card in enumerate(cards):
        mine = [c for chunk in range(chunks) for c in pieces[chunk * stages + s]]
        waits = []
        if rule.before_forward:
            # Weights are gathered for each micro-batch, forward and backward, and not hidden.
            sizes = [sum(c.of(r).gather_bytes for c in mine) for r in range(len(card.names))]
            for _ in range(2 * plan.micro_batches - 1):
                waits = [card.collective("all_gather", "weights", sizes, [])]
        if rule.after_backward:
            waits = [card.reduce("gradients", mine, [card.last])]
        card.update(mine, waits)
    return cards
