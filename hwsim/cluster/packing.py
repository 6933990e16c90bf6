"""How often 2:4 weights are packed under a plan, and which arrive as their kernels read them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hwsim.cluster.parts import Part
from hwsim.cluster.plan import ParallelPlan
from hwsim.device import Device
from hwsim.devices.gpu import Gpu
from hwsim.gpu.matmul import SPARSE
from hwsim.gpu.storage import FORMS, Stored, stored, total
from hwsim.workload import PRODUCTS, Op


@dataclass(frozen=True)
class Spent:
    """Of a part, or of a rank's share of it, in one micro-batch.

    Attributes:
        forward_s, backward_s, update_s: seconds.
        beside_s: of the backward pass, weight gradients of the layers that were named.
        as_sparse: masked weights that the forward and that the backward pass read in a sparse form.
        as_two_four: of these, in the 2:4 form.
    """

    forward_s: float
    backward_s: float
    update_s: float
    as_sparse: tuple[int, int]
    as_two_four: tuple[int, int]
    beside_s: float = 0.0


def packs(plan: ParallelPlan) -> float:
    """Of a 2:4 weight, by each rank in each micro-batch; values change once a step.

    Ranks that hold whole weights pack them once for all micro-batches. Weights that are gathered
    are packed for each pass, but where they are carried packed: then whoever holds a share has
    packed it, once.
    """
    gathered = plan.sharded >= 3 and plan.shard_ranks > 1
    if gathered and not plan.packed:
        return 1.0
    return 1.0 / (plan.micro_batches * (plan.shard_ranks if gathered else 1))


def spent(
    part: Part, device: Device, each: float, known: dict[int, float] | None = None,
    named: Collection[str] = (),
) -> Spent:  # fmt: skip
    """What a part takes if 2:4 weights are packed `each` times in a micro-batch.

    Args:
        known: of ops without a mask, which other ranks have too; as long as these live.
        named: layers whose weight gradients are told apart.
    """
    took = {} if known is None else known
    forward, sparse, two_four = _pass(part.forward, device, each, took)
    backward, sparse_back, two_four_back = _pass(part.backward, device, each, took)
    update = sum(_seconds(op, device, took) for op in part.update)
    beside = sum(_seconds(op, device, took) for op in part.backward
                 if op.phase == "grad_weight" and op.name in named)  # fmt: skip
    return Spent(
        forward, backward, update, (sparse, sparse_back), (two_four, two_four_back), beside
    )  # fmt: skip


def kept(part: Part, device: Device | None, each: float) -> Stored:
    """What the kernels of all of a part's masked layers keep; found once for a device."""
    if not isinstance(device, Gpu) or not part.masked_weights:
        return Stored()
    if (device, each) not in part.stored:
        layers = []
        for masked in part.masked():
            products = part.products(masked.name)
            kernels = {op.phase: _kernel(op, device, each)[1] for op in products}
            layers.append(stored(products, kernels))
        part.stored[device, each] = total(layers)
    return part.stored[device, each]


def _pass(
    ops: Sequence[Op], device: Device, each: float, known: dict[int, float]
) -> tuple[float, int, int]:
    """Seconds, and the masked weights that are read in any sparse form and as 2:4."""
    seconds, sparse, two_four = 0.0, 0, 0
    for op in ops:
        if op.mask is None:
            seconds += _seconds(op, device, known)
            continue
        found, kernel = _kernel(op, device, each)
        seconds += found
        if op.kind in PRODUCTS and op.phase != "grad_weight":
            sparse += op.weights if kernel in FORMS else 0
            two_four += op.weights if kernel == SPARSE else 0
    return seconds, sparse, two_four


def _seconds(op: Op, device: Device, known: dict[int, float]) -> float:
    """Of an op that is not packed."""
    if op.mask is not None:
        return device.estimate(op).seconds
    if id(op) not in known:
        known[id(op)] = device.estimate(op).seconds
    return known[id(op)]


def _kernel(op: Op, device: Device, each: float) -> tuple[float, str]:
    """Seconds of the fastest kernel, and its name."""
    best = device.estimate(op)
    if each >= 1.0 or op.mask is None or not isinstance(device, Gpu) or op.kind not in PRODUCTS:
        return best.seconds, best.kernel
    tensor = next(e for e in (best, *best.rejected) if e.kernel == SPARSE)
    if tensor.legal:
        less = tensor.seconds - (1.0 - each) * device.pack_seconds(op)
        if less < best.seconds:
            return less, SPARSE
    return best.seconds, best.kernel
