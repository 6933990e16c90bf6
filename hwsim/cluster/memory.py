"""What a card must hold during a step.

Source: Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 6, for activations; Rajbhandari
et al. 2020 (ZeRO), section 3, for model states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.cluster.parts import Part
from hwsim.cluster.plan import ParallelPlan
from hwsim.errors import InputError

# In float32 beside 16-bit weights: the weight itself.
MASTER_BYTES = 4.0


@dataclass(frozen=True)
class Need:
    """Bytes of the fullest card.

    Attributes:
        moments: of the optimizer, with the weights that it keeps in float32 beside 16-bit ones.
        masks: a bit a weight of a masked layer.
    """

    weights: float
    gradients: float
    moments: float
    activations: float
    masks: float = 0.0

    @property
    def states(self) -> float:
        """Bytes of weights, gradients, moments and masks."""
        return self.weights + self.gradients + self.moments + self.masks

    @property
    def total(self) -> float:
        """Bytes of states and activations."""
        return self.states + self.activations


def need(parts: Sequence[Part], plan: ParallelPlan) -> Need:
    """What the fullest card of a plan holds.

    Args:
        parts: of one micro-batch's step on one card, unshared.
    """
    number = sum(part.nnz if plan.compact else part.weights for part in parts)
    weights = number / (plan.tp * plan.pp)
    itemsize = min((part.itemsize for part in parts if part.forward), default=4)
    master = MASTER_BYTES if itemsize < 4 else 0.0
    shared = [plan.shard_ranks if plan.sharded >= level else 1 for level in (3, 2, 1)]
    largest = max((part.weights for part in parts), default=0) / plan.tp
    gradient = max(plan.gradient_bytes, float(itemsize))
    held, gradients = weights * itemsize / shared[0], weights * gradient / shared[1]
    if shared[0] > 1 or plan.compact:  # gathered, or unpacked
        held += largest * itemsize
    if plan.compact:  # as the backward pass makes it, of one part at a time
        gradients += largest * gradient
    masked = sum(op.weights for part in parts for op in part.masked()) / (plan.tp * plan.pp)
    return Need(
        held, gradients, weights * (master + plan.moment_bytes) / shared[2],
        _activations(parts, plan), masked / 8.0 / shared[0],
    )  # fmt: skip


def _activations(parts: Sequence[Part], plan: ParallelPlan) -> float:
    blocks = [part for part in parts if part.width and part.heads]
    if not blocks:
        return 0.0
    layers = len(blocks) / plan.pp
    # The first stage keeps as many micro-batches as there are stages behind it.
    flying = min(plan.micro_batches, plan.pp) / plan.pp
    if plan.interleave > 1 and plan.micro_batches >= plan.pp:
        flying *= 1.0 + (plan.pp - 1) / (plan.pp * plan.interleave)
    one = max(block_bytes(part, plan) for part in blocks)
    kept = one * layers * plan.pp * flying
    return kept + (block_bytes(blocks[0], plan, "none") if plan.recompute == "full" else 0.0)


def block_bytes(part: Part, plan: ParallelPlan, recompute: str | None = None) -> float:
    """Of one block's activations: s·b·h·(10 + 24/t + 5·a·s/(h·t)) in 16 bit."""
    recompute = plan.recompute if recompute is None else recompute
    rows, t = part.rows * part.width * (part.itemsize / 2.0), float(plan.tp)
    if recompute == "full":
        return 2.0 * rows / (t if plan.sequence else 1.0)
    linear = 34.0 / t if plan.sequence else 10.0 + 24.0 / t
    batch = part.rows // max(part.length, 1)
    heads = part.heads / max(batch, 1)
    kept = part.scores and recompute == "none"
    return rows * (linear + (5.0 * heads * part.length / (part.width * t) if kept else 0.0))


def refuse(total: float, capacity: float, plan: ParallelPlan) -> None:
    """An InputError where a plan does not fit, which says what would bring it down."""
    if total <= capacity:
        return
    ways = []
    if plan.sharded < 3 and plan.dp > 1:
        ways.append("fsdp")
    if plan.recompute != "full":
        ways.append("recompute=full")
    ways.append("more cards, a smaller batch or --fit, which looks for what fits")
    raise InputError(
        f"memory: {plan} needs {total / 1e9:.1f} GB a card; allowed is {capacity / 1e9:.1f} GB: "
        f"try {', '.join(ways)}"
    )


def what_fits(
    parts: Sequence[Part], capacity: float, moment_bytes: float = 8.0
) -> ParallelPlan | None:
    """The fewest cards that hold a step: one that recomputes, or a power of two that shares."""
    tried = [ParallelPlan(recompute="full", moment_bytes=moment_bytes)]
    tried += [ParallelPlan("fsdp", 2**i, recompute=how, moment_bytes=moment_bytes)
              for i in range(1, 13) for how in ("none", "full")]  # fmt: skip
    return next((plan for plan in tried if need(parts, plan).total <= capacity), None)
