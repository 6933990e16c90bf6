"""A training step on a cluster: its tasks, when they end, and what a card must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cluster.collectives import seconds, sent_bytes
from hwsim.cluster.fast import ends
from hwsim.cluster.forms import pipeline, tensor
from hwsim.cluster.forms.data import collectives
from hwsim.cluster.machine import Cluster
from hwsim.cluster.memory import Need, need
from hwsim.cluster.parts import Part, parts_of
from hwsim.cluster.plan import Plan
from hwsim.cluster.tasks import TICKS_PER_S, Tasks
from hwsim.errors import InputError
from hwsim.workload import Workload

COMPUTE, DATA, TENSOR, SEND = "compute", "data", "tensor", "send"


@dataclass(frozen=True)
class ClusterStep:
    """One step of a plan.

    Attributes:
        seconds: from its start to the end of its last task.
        compute_s: of the busiest card, collectives apart.
        sent_bytes: by one card of the first stage.
        need: bytes of the fullest card.
        fits: whether that is within a card's memory.
    """

    plan: Plan
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


@dataclass
class _Costs:
    """Of one part on one card."""

    part: Part
    forward_s: float
    backward_s: float
    update_s: float
    exchange_s: float
    exchanges: int
    gather_bytes: float
    reduce_bytes: float
    unpack_s: float
    slowed_s: tuple[float, float] = (0.0, 0.0)


def cluster_step(cluster: Cluster, step: Workload, plan: Plan) -> ClusterStep:
    """What a step takes: `step` is one card's, of one micro-batch, not shared out.

    Raises:
        InputError: more cards than there are, heads or layers that the plan does not divide.
    """
    return timed(cluster, parts_of(step), plan)


def timed(
    cluster: Cluster, parts: Sequence[Part], plan: Plan, known: dict[tuple, Any] | None = None
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
    known = {} if known is None else known
    costs = [_costs(cluster, part, plan, known) for part in parts]
    tasks = Tasks()
    sent = [0.0]
    if plan.pp == 1:
        _one_stage(cluster, plan, costs, tasks, sent)
    else:
        _stages(cluster, plan, costs, tasks, sent)
    done = ends(tasks)
    busy = np.zeros(len(tasks.streams))
    np.add.at(busy, tasks.stream, tasks.ticks)
    compute = max(b for b, s in zip(busy, tasks.streams, strict=True) if s.endswith(COMPUTE))
    held = need(parts, plan)
    return ClusterStep(
        plan, float(done.max()) / TICKS_PER_S, compute / TICKS_PER_S, sent[0], held,
        held.total <= cluster.memory_bytes, tasks, done,
    )  # fmt: skip


def _costs(cluster: Cluster, part: Part, plan: Plan, known: dict[tuple, Any]) -> _Costs:
    asked = (part.content, plan.tp, plan.sequence)
    if asked not in known:
        own = tensor.cut(part, plan.tp, sequence=plan.sequence)
        known[asked] = own, own.seconds(cluster.device)
    own, (forward, backward, update) = known[asked]
    if plan.recompute == "full" and part.heads:
        backward += forward
    if plan.recompute == "selective" and part.scores:
        names = ("attention", "softmax")
        again = [op for op in own.forward if op.kind in names]
        backward += sum(cluster.device.estimate(op).seconds for op in again)
    exchanges = tensor.exchanges(part) if plan.tp > 1 else 0
    exchange = seconds(cluster, "all_reduce", part.boundary_bytes, plan.tp) if exchanges else 0.0
    moved = (part.nnz if plan.values else part.weights) * part.itemsize / plan.tp
    unpack = 0.0
    if plan.values and part.nnz < part.weights and plan.dp > 1:
        rate = getattr(cluster.device, "dram_bytes_per_s", float("inf"))
        unpack = (part.nnz + part.weights) * part.itemsize / plan.tp / rate
    shared = plan.dp if plan.sharded >= 1 else 1
    return _Costs(
        part,
        forward,
        backward,
        update / shared,
        exchange,
        exchanges,
        moved,
        moved,
        unpack,
        _slowed(cluster, plan, moved),
    )


def _slowed(cluster: Cluster, plan: Plan, moved: float) -> tuple[float, float]:
    """What collectives beside a part's forward and backward pass cost its arithmetic, seconds."""
    kinds, slows = collectives(plan), cluster.link(plan.dp, plan.tp).slows
    if not moved or plan.pp > 1:
        return 0.0, 0.0

    def cost(kind: str) -> float:
        return slows * seconds(cluster, kind, moved, plan.dp, plan.tp) if kind else 0.0

    # Without shares of gradients, sums are made once a step: behind its last micro-batch.
    every = 1.0 if plan.sharded >= 2 else 1.0 / plan.micro_batches
    return cost(kinds.before_forward), (
        cost(kinds.before_backward) + every * cost(kinds.after_backward)
    )


class _Stage:
    """One card's streams, and the tasks on them."""

    def __init__(
        self, cluster: Cluster, plan: Plan, tasks: Tasks, name: str, sent: list[float]
    ) -> None:
        self.cluster, self.plan, self.tasks, self.name, self.sent = (
            cluster, plan, tasks, name, sent,
        )  # fmt: skip
        self.last = -1

    def compute(self, name: str, takes: float, waits: Sequence[int] = ()) -> int:
        self.last = self.tasks.add(f"{self.name} {COMPUTE}", name, takes, (*waits, self.last))
        return self.last

    def exchange(self, name: str, cost: _Costs, number: int) -> None:
        """The tensor-parallel sums of a part: the next product waits for them."""
        if not number:
            return
        stream = f"{self.name} {TENSOR}"
        for _ in range(number):
            self.last = self.tasks.add(stream, name, cost.exchange_s, (self.last,))
        self.sent[0] += number * sent_bytes("all_reduce", cost.part.boundary_bytes, self.plan.tp)

    def collective(self, kind: str, name: str, size: float, waits: Sequence[int]) -> int:
        plan = self.plan
        takes = seconds(self.cluster, kind, size, plan.dp, plan.tp)
        self.sent[0] += sent_bytes(kind, size, plan.dp)
        # What crosses the same link takes turns on it.
        shared = plan.tp > 1 and self.cluster.link(plan.dp, plan.tp) is self.cluster.inside
        stream = f"{self.name} {TENSOR if shared else DATA}"
        return self.tasks.add(stream, f"{kind} {name}", takes, waits)

    def forward(self, cost: _Costs, waits: Sequence[int] = ()) -> int:
        takes = cost.forward_s + cost.unpack_s + cost.slowed_s[0]
        name = f"forward {cost.part.name}"
        self.compute(name, takes, waits)
        self.exchange(name, cost, cost.exchanges)
        return self.last

    def backward(self, cost: _Costs, waits: Sequence[int] = ()) -> int:
        takes = cost.backward_s + cost.unpack_s + cost.slowed_s[1]
        name = f"backward {cost.part.name}"
        self.compute(name, takes, waits)
        again = self.plan.recompute == "full" and cost.part.heads
        self.exchange(name, cost, cost.exchanges * (2 if again else 1))
        return self.last


def _one_stage(
    cluster: Cluster, plan: Plan, costs: list[_Costs], tasks: Tasks, sent: list[float]
) -> None:
    stage = _Stage(cluster, plan, tasks, "card", sent)
    kinds = collectives(plan)
    last_block = len(costs) - 2
    reduced: list[int] = []
    for micro in range(plan.micro_batches):
        done: list[int] = []
        for i, cost in enumerate(costs):
            waits = []
            if kinds.before_forward and cost.part.weights:
                # Two parts' weights are gathered at most; what is computed last makes room.
                room = done[i - 2] if i >= 2 else stage.last
                waits = [stage.collective("all_gather", cost.part.name, cost.gather_bytes, [room])]
            done.append(stage.forward(cost, waits))
        backs: list[int] = []
        order = list(range(len(costs)))[::-1]
        gathered: dict[int, int] = {}
        for place, i in enumerate(order):
            cost = costs[i]
            # The next part's weights are asked for before this part's gradients are sent.
            for j in order[place : place + 2]:
                kept = j >= last_block or j == 0
                again = kinds.before_backward and costs[j].part.weights and not kept
                if again and j not in gathered:
                    room = backs[-1] if backs else stage.last
                    gathered[j] = stage.collective(
                        "all_gather", costs[j].part.name, costs[j].gather_bytes, [room]
                    )
            backs.append(stage.backward(cost, [gathered[i]] if i in gathered else []))
            every = plan.sharded >= 2 and plan.dp > 1
            if kinds.after_backward and (every or micro == plan.micro_batches - 1):
                size = cost.reduce_bytes
                if cost.part.weights:
                    reduced.append(
                        stage.collective(kinds.after_backward, cost.part.name, size, [backs[-1]])
                    )
    update = sum(cost.update_s for cost in costs)
    stage.compute("update", update, reduced[-1:])
    if kinds.after_update:
        size = sum(cost.gather_bytes for cost in costs)
        stage.collective(kinds.after_update, "weights", size, [stage.last])


def _stages(
    cluster: Cluster, plan: Plan, costs: list[_Costs], tasks: Tasks, sent: list[float]
) -> None:
    """Each stage's card; micro-batches go from stage to stage and back."""
    chunks, stages = plan.interleave, plan.pp
    pieces = [costs[1 + a : 1 + b] for a, b in pipeline.bounds(len(costs) - 2, stages, chunks)]
    pieces[0] = [costs[0], *pieces[0]]
    pieces[-1] = [*pieces[-1], costs[-1]]
    carried = max((c.part.boundary_bytes for c in costs), default=0.0)
    carried /= plan.tp if plan.sequence else 1
    hop = seconds(cluster, "send", carried, 2, plan.dp * plan.tp)
    cards = [_Stage(cluster, plan, tasks, f"stage-{s}", sent if s == 0 else [0.0])
             for s in range(stages)]  # fmt: skip
    todo = [pipeline.order(s, stages, plan.micro_batches, chunks) for s in range(stages)]
    arrived: dict[tuple[str, int, int], int] = {}
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
                    label = f"{kind}{micro} to {to}"
                    name = f"{card.name} {SEND}" + (" back" if kind == "B" else "")
                    arrived[kind, micro, to] = tasks.add(name, label, hop, [card.last])
                    card.sent[0] += carried
                at[s] += 1
                moved = True
    kinds = collectives(plan)
    for s, card in enumerate(cards):
        mine = [c for chunk in range(chunks) for c in pieces[chunk * stages + s]]
        size = sum(c.reduce_bytes for c in mine)
        waits = []
        if kinds.before_forward:
            # Weights are gathered for each micro-batch, forward and backward, and not hidden.
            for _ in range(2 * plan.micro_batches - 1):
                waits = [card.collective("all_gather", "weights", size, [])]
        if kinds.after_backward:
            waits = [card.collective(kinds.after_backward, "gradients", size, [card.last])]
        card.compute("update", sum(c.update_s for c in mine), waits)
        if kinds.after_update:
            card.collective(kinds.after_update, "weights", size, [card.last])
