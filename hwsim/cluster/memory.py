"""What a card must hold during a step.

Source: Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 6, for activations; Rajbhandari
et al. 2020 (ZeRO), section 3, for model states; `hwsim/gpu/storage.py` for what kernels store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwsim import units
from hwsim.cluster.packing import kept, packs
from hwsim.cluster.parts import Part
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.recompute import recomputed
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.workload import PRODUCTS

# In float32 beside 16-bit weights: the weight itself.
MASTER_BYTES = 4.0
# Of a weight: `sparse_train.sparsify` keeps boolean buffers; forms that no framework has yet, bits.
_BOOLEAN, _BIT = 1.0, 1.0 / 8.0


@dataclass(frozen=True)
class Need:
    """Bytes of the fullest card.

    Attributes:
        moments: of the optimizer, with the weights that it keeps in float32 beside 16-bit ones.
        masks: a byte a weight of a masked layer, as booleans are kept; a bit a weight under
            `compact` and `values`.
        indices: by which sparse kernels find the places of their values.
        packed: values in sparse kernels' own forms: of one part at a time, or of all that rest.
    """

    weights: float
    gradients: float
    moments: float
    activations: float
    masks: float = 0.0
    indices: float = 0.0
    packed: float = 0.0

    @property
    def states(self) -> float:
        """Bytes of all but activations."""
        held = self.weights + self.gradients + self.moments
        return held + self.masks + self.indices + self.packed

    @property
    def total(self) -> float:
        """Bytes of states and activations."""
        return self.states + self.activations


def need(parts: Sequence[Part], plan: ParallelPlan, device: Device | None = None) -> Need:
    """What the fullest card of a plan holds.

    A layer's sparse kernels keep the places of their values for as long as the mask rests, and
    their values, which change in every step, while the layer's part is at work, or until the
    update where they are packed once for all micro-batches. A layer
    under `compact` whose products all read a sparse form is never unpacked.

    Args:
        parts: of one micro-batch's step on one card, unshared.
        device: whose kernels are taken; None for none that need anything beside the weights.
    """
    each = packs(plan)
    stored = [kept(part, device, each) for part in parts]
    number = sum(part.nnz if plan.compact else part.weights for part in parts)
    split = plan.tp * plan.pp
    weights = number / split
    itemsize = min((part.itemsize for part in parts if part.forward), default=4)
    master = MASTER_BYTES if itemsize < 4 else 0.0
    shared = [plan.shard_ranks if plan.sharded >= level else 1 for level in (3, 2, 1)]
    largest = max((part.weights for part in parts), default=0) / plan.tp
    unpacked, made = largest, 0.0
    if plan.compact:
        both = list(zip(parts, stored, strict=True))
        unpacked = max((part.weights - own.sparse for part, own in both), default=0) / plan.tp
        # Dense as the backward pass makes it, of one part at a time.
        made = max((part.weights - own.sampled for part, own in both), default=0) / plan.tp
    gradient = max(plan.gradient_bytes, float(itemsize))
    held, gradients = weights * itemsize / shared[0], weights * gradient / shared[1]
    if shared[0] > 1 or plan.compact:  # gathered, or unpacked
        held += unpacked * itemsize
    return Need(
        held, gradients + made * gradient, weights * (master + plan.moment_bytes) / shared[2],
        activations(parts, plan), _mask_bytes(parts, plan, shared[0]),
        sum(own.index_bytes for own in stored) / split / shared[0],
        _packed_bytes([own.value_bytes for own in stored], plan),
    )  # fmt: skip


def with_recompute(known: Need, parts: Sequence[Part], plan: ParallelPlan) -> Need:
    """What a plan needs that differs in nothing but recomputation from one whose need is known."""
    return replace(known, activations=activations(parts, plan))


def _mask_bytes(parts: Sequence[Part], plan: ParallelPlan, shared: int) -> float:
    masked = sum(part.masked_weights for part in parts) / (plan.tp * plan.pp)
    if plan.values:  # each rank places the values that it is sent
        return masked * _BIT
    return masked * (_BIT if plan.compact else _BOOLEAN) / shared


def _packed_bytes(values: Sequence[float], plan: ParallelPlan) -> float:
    """Values of sparse kernels: of one part at a time, but where they rest until the update."""
    one = max(values, default=0.0) / plan.tp
    every = sum(values) / (plan.tp * plan.pp)
    if plan.sharded >= 3 and plan.shard_ranks > 1:
        return one + (every / plan.shard_ranks if plan.packed else 0.0)
    return every if plan.micro_batches > 1 else one


def activations(parts: Sequence[Part], plan: ParallelPlan) -> float:
    """Bytes that the fullest card keeps for the backward pass, and computes again at once."""
    blocks = [part for part in parts if part.width and part.heads]
    if not blocks:
        return 0.0
    # The first stage keeps as many micro-batches as there are stages behind it.
    flying = min(plan.micro_batches, plan.pp) / plan.pp
    if plan.interleave > 1 and plan.micro_batches >= plan.pp:
        flying *= 1.0 + (plan.pp - 1) / (plan.pp * plan.interleave)
    whole = max(block_bytes(part, plan, "none") for part in blocks)
    head = _head_bytes(parts[-1], plan)
    if plan.recompute == "none":
        return whole * len(blocks) * flying + head
    less = max(block_bytes(part, plan) for part in blocks)
    again = _share_of_layers(parts, plan, len(blocks))
    left = (again * less + (1.0 - again) * whole) * len(blocks) * flying
    # One layer at a time is there in full; where its neighbours are kept, these have made room.
    return left + head + (whole - less if plan.recompute == "full" and plan.every == 1 else 0.0)


def _head_bytes(last: Part, plan: ParallelPlan) -> float:
    """Of what follows the layers: its products' inputs, and outputs in float32, as the loss wants.

    Behind stages it is of one micro-batch while the first stage, the fullest, holds many: left out.
    """
    products = [op for op in last.forward if op.kind in PRODUCTS and op.weight_shape]
    if plan.pp > 1 or not products:
        return 0.0
    widest = max(op.n for op in products)
    rows = max(op.m for op in products)
    inputs = sum(op.m * op.k * last.itemsize for op in products)
    return (2.0 * inputs + 4.0 * rows * widest) / plan.tp


def _share_of_layers(parts: Sequence[Part], plan: ParallelPlan, layers: int) -> float:
    """Of all layers, those that compute something again."""
    if plan.every == 1:
        return 1.0
    try:
        return len(recomputed(parts, plan)) / layers
    except InputError:  # fewer layers than stages: what prices the plan says so
        return 1.0 / plan.every


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
        f"memory: {plan} needs {units.quantity(total, 'B')} a card; allowed is "
        f"{units.quantity(capacity, 'B')}: try {', '.join(ways)}"
    )


def what_fits(
    parts: Sequence[Part],
    capacity: float,
    moment_bytes: float = 8.0,
    device: Device | None = None,
) -> ParallelPlan | None:
    """The fewest cards that hold a step: one that recomputes, or a power of two that shares."""
    tried = [ParallelPlan(recompute="full", moment_bytes=moment_bytes)]
    tried += [ParallelPlan("fsdp", 2**i, recompute=how, moment_bytes=moment_bytes)
              for i in range(1, 13) for how in ("none", "full")]  # fmt: skip
    return next((plan for plan in tried if need(parts, plan, device).total <= capacity), None)
