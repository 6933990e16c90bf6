"""What a part costs each of the cards that compute it together, and what they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.cluster.collectives import seconds
from hwsim.cluster.forms import tensor
from hwsim.cluster.machine import Cluster
from hwsim.cluster.packing import Spent, packs, spent
from hwsim.cluster.parts import Part, scores_again
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.recompute import recomputed
from hwsim.patterns import pattern

# Of an active value of 2:4, its place among four. Source: NVIDIA, PTX ISA, sparse matrix storage.
_PLACE_BYTES = 2.0 / 8.0


@dataclass(frozen=True)
class Share:
    """Of one tensor-parallel rank: seconds, and bytes that its data-parallel collectives move.

    Attributes:
        unpack_s: of weights that arrive packed, and of gradients, in the forward and the backward
            pass.
        gather_bytes, reduce_bytes: of the whole weight, and of its gradient.
        mask_bytes: of the masks that this step changes, a bit a weight.
        slowed_s: what collectives beside the forward and the backward pass cost them.
        beside_s: of the backward pass, weight gradients that are made while the gradients of their
            products' inputs are summed up.
    """

    forward_s: float
    backward_s: float
    update_s: float
    gather_bytes: float
    reduce_bytes: float
    unpack_s: tuple[float, float]
    mask_bytes: float
    slowed_s: tuple[float, float]
    beside_s: float


@dataclass(frozen=True)
class Costs:
    """Of one part: its ranks' shares (one, where all are alike), and what they sum up.

    Attributes:
        exchange_s: of a sum of activations, or of their gradients, over tensor-parallel ranks.
        exchanges, again: of activations, in the forward pass, and when it is done again; there are
            as many of gradients.
        gather_s: of a product's input, shared out along the sequence, for its weight gradient.
    """

    part: Part
    shares: tuple[Share, ...]
    exchange_s: float
    exchanges: int
    again: int
    gather_s: float

    def of(self, rank: int) -> Share:
        """What a rank of the tensor-parallel group has to do."""
        return self.shares[rank if len(self.shares) > 1 else 0]


def costs(
    cluster: Cluster, parts: Sequence[Part], plan: ParallelPlan, known: dict[tuple, Any]
) -> list[Costs]:
    """Of each part under a plan.

    Args:
        known: shared between calls with the same cluster and parts: what parts' shares cost.
    """
    again = recomputed(parts, plan)
    return [_costs(cluster, part, plan, known, i in again) for i, part in enumerate(parts)]


def _costs(
    cluster: Cluster, part: Part, plan: ParallelPlan, known: dict[tuple, Any], again: bool
) -> Costs:
    each = packs(plan) if part.masked_weights else 1.0
    asked = (part.content, plan.tp, plan.sequence, each)
    if asked not in known:
        kept = known.setdefault(("shares of masks",), {})
        many = tensor.ranks_that_differ(part, plan.tp)
        alike: dict[tuple, Any] = {}
        took: dict[int, float] = {}
        cuts = [tensor.cut(part, plan.tp, sequence=plan.sequence, rank=rank, shares=kept,
                           alike=alike) for rank in range(many)]  # fmt: skip
        named = tensor.beside_sums(part) if plan.tp > 1 else set()
        known[asked] = [(own, spent(own, cluster.device, each, took, named)) for own in cuts]
    exchanges = tensor.exchanges(part) if plan.tp > 1 else 0
    exchange, gather = 0.0, 0.0
    if exchanges:
        exchange = seconds(cluster, "all_reduce", part.boundary_bytes, plan.tp)
        if plan.sequence:
            gather = seconds(cluster, "all_gather", part.boundary_bytes, plan.tp)
    beside = exchanges * cluster.link(plan.tp).slows * (exchange + gather)
    shares = tuple(_share(cluster, part, own, took, plan, again, beside)
                   for own, took in known[asked])  # fmt: skip
    twice = exchanges if again and plan.recompute == "full" else 0
    return Costs(part, shares, exchange, exchanges, twice, gather)


def _share(
    cluster: Cluster, part: Part, own: Part, took: Spent, plan: ParallelPlan, again: bool,
    slowed_beside: float,
) -> Share:  # fmt: skip
    """
    Args:
        slowed_beside: seconds that exchanges cost the backward pass they run beside.
    """
    forward, backward = took.forward_s, took.backward_s
    if again and plan.recompute == "full":
        backward += forward
    if again and plan.recompute == "selective":
        backward += sum(cluster.device.estimate(op).seconds for op in scores_again(own.forward))
    moved, reduced = carried_bytes(part, own, plan)
    unpack = _unpack_s(cluster, part, own, took, plan, moved)
    changed = {op.name for op in own.update if op.kind == "mask_update"}
    bits = sum(op.weights for op in own.masked() if op.name in changed) if changed else 0
    shared = plan.shard_ranks if plan.sharded >= 1 else 1
    there, back = slowed(cluster, plan, moved, reduced)
    return Share(
        forward, backward, took.update_s / shared, moved, reduced, unpack, bits / 8.0,
        (there, back + slowed_beside), took.beside_s if plan.tp > 1 else 0.0,
    )  # fmt: skip


def _unpack_s(
    cluster: Cluster, part: Part, own: Part, took: Spent, plan: ParallelPlan, moved: float
) -> tuple[float, float]:
    """A pass over the packed and the whole weights, of which kernels do not read them packed."""
    whole = part.weights * part.itemsize / plan.tp
    packed = moved if moved < whole and plan.dp > 1 else whole
    if plan.compact:
        packed = min(packed, whole - sum(_inactive_bytes(op, part.itemsize) for op in own.masked()))
    if packed >= whole:
        return 0.0, 0.0
    takes = (packed + whole) / getattr(cluster.device, "dram_bytes_per_s", float("inf"))
    read = took.as_sparse if plan.compact else took.as_two_four if plan.packed else (0, 0)
    left = [1.0 - r / max(own.masked_weights, 1) for r in read]
    # Without weights to gather there are gradients to pack and unpack, behind the backward pass.
    gathers = plan.compact or plan.rule.before_forward
    return takes * left[0] if gathers else 0.0, takes * left[1] if gathers else takes


def carried_bytes(part: Part, own: Part, plan: ParallelPlan) -> tuple[float, float]:
    """What collectives carry of a rank's weights, and of their gradients.

    Args:
        part: the whole part, whose unmasked weights are shared evenly.
        own: the rank's share, whose masks have counts of their own.
    """
    whole = part.weights * part.itemsize / plan.tp
    if not (plan.values or plan.packed):
        return whole, whole
    dense = own.dense_gradients()
    weights = gradients = whole
    for op in own.masked():
        saved = _saved(op, part.itemsize, plan)
        weights -= saved
        gradients -= 0.0 if op.name in dense else saved
    return weights, gradients


def _saved(op: Any, itemsize: int, plan: ParallelPlan) -> float:
    left = _inactive_bytes(op, itemsize)
    if plan.values:
        return left
    return left - op.nnz * _PLACE_BYTES if op.mask.satisfies(pattern("2:4")) else 0.0


def _inactive_bytes(op: Any, itemsize: int) -> float:
    return float((op.weights - op.nnz) * itemsize)


def across_bytes(size: float, plan: ParallelPlan) -> float:
    """Of a rank's share of a sum that goes on among groups."""
    return size / plan.shard_ranks if plan.rule.across and plan.shard_ranks < plan.dp else 0.0


def slowed(
    cluster: Cluster, plan: ParallelPlan, moved: float, reduced: float
) -> tuple[float, float]:
    """What collectives beside a part's forward and backward pass cost its arithmetic, seconds."""
    if not moved or plan.pp > 1 or plan.dp == 1:
        return 0.0, 0.0
    rule, ranks, apart = plan.rule, plan.shard_ranks, plan.tp
    slows = cluster.link(ranks, apart).slows

    def cost(kind: str, size: float) -> float:
        return slows * seconds(cluster, kind, size, ranks, apart) if kind else 0.0

    after = cost(rule.after_backward, reduced)
    groups, size = plan.dp // ranks, across_bytes(reduced, plan)
    if size:
        far = cluster.link(groups, apart * ranks).slows
        after += far * seconds(cluster, rule.across, size, groups, apart * ranks)
    # Without shares of gradients, sums are made once a step: behind its last micro-batch.
    every = 1.0 if plan.sharded >= 2 else 1.0 / plan.micro_batches
    return cost(rule.before_forward, moved), cost(rule.before_backward, moved) + every * after
