"""Dense or 2:4, layer by layer, and why: what a GPU's prices say about a masked step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.device import Device
from hwsim.devices.gpu import Gpu
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.gpu.matmul import DENSE, SPARSE
from hwsim.gpu.sparse import V_N_M
from hwsim.workload import PHASES, PRODUCTS, Op, Workload


@dataclass(frozen=True)
class PhaseChoice:
    """One product of a layer: the kernel taken, and its 2:4 and dense prices.

    Attributes:
        phase: forward, grad_input or grad_weight.
        chosen: the fastest kernel under the mask.
        dense: the dense kernel's price.
        two_four: the 2:4 kernel's price, packing included; illegal with its reason.
        v_n_m: the V:N:M kernel's, likewise.
        pack_s: seconds of packing within it; 0 where it is illegal.
    """

    phase: str
    chosen: Estimate
    dense: Estimate
    two_four: Estimate
    v_n_m: Estimate
    pack_s: float


@dataclass(frozen=True)
class LayerChoice:
    """A layer's training step, without a mask and with its mask.

    Attributes:
        layers: the layers that this holds for: equal shape, equal prices, equal reason.
        rows, shape: rows of its activation, (n_out, n_in) of its weight.
        phases: its products, in the order of a step.
        dense_s, masked_s: everything that belongs to one such layer: products, optimizer, packing.
        answer: "2:4", "dense", or another kernel, whichever takes least over the whole step.
        why: one sentence.
    """

    layers: tuple[str, ...]
    rows: int
    shape: tuple[int, int]
    phases: tuple[PhaseChoice, ...]
    dense_s: float
    masked_s: float
    answer: str
    why: str

    @property
    def speed_up(self) -> float:
        """Dense seconds over masked ones."""
        return self.dense_s / self.masked_s


def layer_choices(device: Device, dense: Workload, masked: Workload) -> list[LayerChoice]:
    """The answer for every masked layer; layers alike are one entry.

    Args:
        device: a GPU.
        dense: the step without masks.
        masked: the same step under masks.

    Raises:
        InputError: a device that is no GPU.
    """
    if not isinstance(device, Gpu):
        raise InputError(f"device {device.name!r}: model is {device.model!r}; allowed is gpu")
    names = masked.masks
    before, after = _by_layer(dense.ops, names), _by_layer(masked.ops, names)
    groups: dict[tuple, list[str]] = {}
    found: dict[tuple, LayerChoice] = {}
    for name in names:
        one = _layer(device, name, before[name], after[name])
        key = (one.rows, one.shape, f"{one.dense_s:.2g}", f"{one.masked_s:.2g}", one.why)
        groups.setdefault(key, []).append(name)
        found.setdefault(key, one)
    return [
        LayerChoice(
            tuple(groups[key]), one.rows, one.shape, one.phases, one.dense_s, one.masked_s,
            one.answer, one.why,
        )
        for key, one in found.items()
    ]  # fmt: skip


def _by_layer(ops: Iterable[Op], names: Iterable[str]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {name: [] for name in names}
    for op in ops:
        if op.weight_shape is not None and op.name in found:
            found[op.name].append(op)
    return found


def _layer(device: Gpu, name: str, dense: list[Op], masked: list[Op]) -> LayerChoice:
    products = [op for op in masked if op.kind in PRODUCTS]
    products.sort(key=lambda op: PHASES.index(op.phase))
    phases = tuple(_phase(device, op) for op in products)
    dense_s = sum(device.estimate(op).seconds for op in dense)
    masked_s = sum(device.estimate(op).seconds for op in masked)
    kernels = [p.chosen.kernel for p in phases if p.chosen.kernel != DENSE]
    answer = kernels[0] if kernels and masked_s < dense_s else DENSE
    first = products[0]
    shape = first.weight_shape or (0, 0)
    why = _why(device, phases, dense_s, masked_s)
    return LayerChoice((name,), first.m, shape, phases, dense_s, masked_s, answer, why)


def _phase(device: Gpu, op: Op) -> PhaseChoice:
    kernels = {e.kernel: e for e in device.kernels(op)}
    two_four = kernels[SPARSE]
    pack_s = device.pack_seconds(op) if two_four.legal else 0.0
    return PhaseChoice(
        op.phase, device.estimate(op), kernels[DENSE], two_four, kernels[V_N_M], pack_s
    )


def _why(device: Gpu, phases: tuple[PhaseChoice, ...], dense_s: float, masked_s: float) -> str:
    """One sentence from the prices: what each direction gains, or what stands in the way."""
    parts = [_direction(p) + _tried(p) for p in phases if p.phase != "grad_weight"]
    sparse = [p for p in phases if p.chosen.kernel != DENSE]
    last = [_gradient(p) + _tried(p) for p in phases if p.phase == "grad_weight"]
    if sparse and masked_s >= dense_s:
        parts.append(
            f"masking the weight takes the gain back ({_us(dense_s)} → {_us(masked_s)} a layer)"
        )
    elif sparse:
        parts += last
    return "; ".join(parts)


def _direction(p: PhaseChoice) -> str:
    if p.chosen.kernel not in (DENSE, SPARSE):
        slower = p.two_four.reason or f"2:4 {p.dense.seconds / p.two_four.seconds:.2f}×"
        return f"{p.phase}: {_faster(p.chosen, p.dense)} ({slower})"
    if not p.two_four.legal:
        return f"{p.phase}: {p.two_four.reason}"
    whole, product = p.two_four.seconds, p.two_four.seconds - p.pack_s
    if p.chosen.kernel == SPARSE:
        paid = f", {_us(p.pack_s)} of packing paid" if p.pack_s else ""
        return f"{p.phase}: 2:4 is {p.dense.seconds / whole:.2f}× as fast{paid}"
    if product < p.dense.seconds:
        return (
            f"{p.phase}: 2:4 saves {_us(p.dense.seconds - product)}, packing costs {_us(p.pack_s)}"
        )
    return f"{p.phase}: 2:4 takes {product / p.dense.seconds:.2f}× the dense time at this size"


def _gradient(p: PhaseChoice) -> str:
    return (
        "grad_weight is dense"
        if p.chosen.kernel == DENSE
        else f"{p.phase}: {_faster(p.chosen, p.dense)}"
    )


def _faster(found: Estimate, dense: Estimate) -> str:
    return f"{found.kernel} is {dense.seconds / found.seconds:.2f}× as fast as dense"


def _tried(p: PhaseChoice) -> str:
    """What V:N:M would have given, where the mask is of it and another kernel is faster."""
    if not p.v_n_m.legal or p.chosen.kernel == V_N_M:
        return ""
    return f", {_faster(p.v_n_m, p.dense)}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
