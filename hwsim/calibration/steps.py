"""A card's constants of whole steps, fitted to measured ones; held out by families of models.

The formulas are those of `hwsim/gpu/whole_steps.py`, on arrays: a fit prices thousands of
operations some hundred times. A test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.devices.gpu import Gpu
from hwsim.errors import InputError
from hwsim.gpu import whole_steps
from hwsim.gpu.matmul import DENSE, ELEMENT_BYTES, FAMILIES
from hwsim.workload import Op, Workload

NAMES = tuple(whole_steps.CONSTANTS)
# How far cards stray from the typical values, in log; what no record speaks of stays there.
_STRAY = {
    "product": 0.3, "product_ends": 1.2, "product_single": 0.15, "elementwise": 0.12,
    "fused": 0.15, "norm": 0.2, "norm_back": 0.3, "conv_back": 0.3, "softmax": 0.3,
    "l2_rate": 0.3, "l2_share": 0.3, "attention": 0.4, "attention_back": 0.6,
}  # fmt: skip
_NOISE, _OTHERWISE = 0.15, 0.4
_PRODUCT, _BMM, _CONV, _GROUPED, _DEPTHWISE, _ATTENTION, _STREAM = range(7)


@dataclass(frozen=True)
class TimedStep:
    """A step that was measured.

    Attributes:
        workload: what it computes.
        seconds: measured.
        family: steps that share one are held out together.
        beside_s: of the measured, what is no kernel of the workload: collectives, and an update
            that is shared out; known from elsewhere, not fitted.
    """

    workload: Workload
    seconds: float
    family: str = ""
    beside_s: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """A step and what a fit to other families says of it."""

    timed: TimedStep
    estimated_s: float

    @property
    def log_error(self) -> float:
        """ln(estimated / measured)."""
        return float(np.log(self.estimated_s / self.timed.seconds))


def fit_steps(device: Gpu, steps: Sequence[TimedStep]) -> dict[str, float]:
    """The constants under which a card's prices of some steps are closest.

    A robust fit of log times, held near the typical values.

    Raises:
        InputError: no step.
    """
    if not steps:
        raise InputError("steps: none given; allowed is at least one")
    return _fit(_Priced(device, steps), np.ones(len(steps), bool))


def held_out(device: Gpu, steps: Sequence[TimedStep], folds: int = 5) -> list[HeldOut]:
    """Every step, priced by a fit to the steps of other families."""
    priced = _Priced(device, steps)
    found: list[HeldOut] = []
    for part in parts_of_families([s.family for s in steps], folds):
        held = np.array([s.family in part for s in steps])
        own = _fit(priced, ~held)
        seconds = priced.seconds(np.log([own[n] for n in NAMES]))
        found += [HeldOut(steps[i], float(seconds[i])) for i in np.flatnonzero(held).tolist()]
    return found


def by_typical(device: Gpu, steps: Sequence[TimedStep]) -> list[HeldOut]:
    """Every step by the typical constants: what a card without records is given."""
    seconds = _Priced(device, steps).seconds(_typical())
    return [HeldOut(s, float(t)) for s, t in zip(steps, seconds, strict=True)]


def by_constants(
    device: Gpu, steps: Sequence[TimedStep], own: Mapping[str, float]
) -> list[HeldOut]:
    """Every step by given constants."""
    seconds = _Priced(device, steps).seconds(np.log([own[n] for n in NAMES]))
    return [HeldOut(s, float(t)) for s, t in zip(steps, seconds, strict=True)]


def _typical() -> np.ndarray:
    return np.log([c.typical for c in whole_steps.CONSTANTS.values()])


def parts_of_families(families: Sequence[str], folds: int) -> list[set[str]]:
    """Families in parts of about equal numbers of steps."""
    names = sorted(set(families), key=lambda f: (-list(families).count(f), f))
    parts: list[set[str]] = [set() for _ in range(min(folds, len(names)))]
    sizes = [0] * len(parts)
    for name in names:
        least = int(np.argmin(sizes))
        parts[least].add(name)
        sizes[least] += list(families).count(name)
    return parts


def _fit(priced: _Priced, seen: np.ndarray) -> dict[str, float]:
    from scipy.optimize import least_squares

    start = _typical()
    if not seen.any():
        return dict(zip(NAMES, np.exp(start), strict=True))
    stray = np.array([_STRAY.get(n, _OTHERWISE) for n in NAMES])

    def residuals(x: np.ndarray) -> np.ndarray:
        missed = np.log(priced.seconds(x) / priced.measured_s)[seen] / _NOISE
        # Soft L1 for the steps alone; a constant's distance counts in full.
        robust = np.sign(missed) * np.sqrt(2.0 * (np.sqrt(1.0 + missed**2) - 1.0))
        return np.concatenate([robust, (x - start) / stray])

    found = least_squares(residuals, start, max_nfev=40)
    return {n: float(v) for n, v in zip(NAMES, np.exp(found.x), strict=True)}


class _Priced:
    """The distinct operations of some steps as arrays, and how often each step has each."""

    def __init__(self, device: Gpu, steps: Sequence[TimedStep]) -> None:
        from scipy.sparse import csr_matrix

        self.measured_s = np.array([s.seconds for s in steps])
        self._beside_s = np.array([s.beside_s for s in steps])
        ops: list[Op] = []
        known: dict[tuple, int] = {}
        rows, columns = [], []
        for row, step in enumerate(steps):
            for op in step.workload:
                key = (*op.signature[:2], *op.signature[3:])
                column = known.setdefault(key, len(ops))
                if column == len(ops):
                    ops.append(op)
                rows.append(row)
                columns.append(column)
        self.ops = ops
        self._count = csr_matrix(
            (np.ones(len(rows)), (rows, columns)), shape=(len(steps), len(ops))
        )
        self._card = device
        self._kind = np.array([_kind(op) for op in ops])
        self._single = np.array([FAMILIES[op.dtype] == "single" for op in ops])
        self._vector = np.array([op.kind == "gemm" and whole_steps.times_vector(op) for op in ops])
        self._moved = np.array([_moved(op) for op in ops], float)
        self._operands = np.array([op.activation_bytes + op.weight_bytes for op in ops], float)
        self._activations = np.array([op.activation_bytes for op in ops], float)
        self._flops = np.array([op.dense_flops for op in ops], float)
        self._peak = np.array([_peak(device, op) for op in ops])
        self._filled = np.array([_filled(op) for op in ops])
        self._last = np.array([op.layout == "channels_last" for op in ops])
        self._turned = np.array([_turned(op) for op in ops])
        self._pointwise = np.array([op.window == 1 for op in ops])
        self._odd = np.array([whole_steps.grouped_of(op) == "grouped_odd" for op in ops])
        self._forward = np.array([op.phase == "forward" for op in ops])
        self._share = np.array([NAMES.index(_share(op)) for op in ops])
        self._serial_s = np.array([whole_steps.serial_s(op) for op in ops])
        again, self._waiting_s = np.array([whole_steps.rows_of(device, op) for op in ops]).T
        self._streamed = self._moved + again
        self._gap_share = np.array([whole_steps.gap_share(op) for op in ops])
        self._product_s = _products(device, ops, self._kind) / device.sustained

    def seconds(self, x: np.ndarray) -> np.ndarray:
        """Of each step, by the logarithms of the constants."""
        return self._count @ self.op_seconds(x) + self._beside_s

    def op_seconds(self, x: np.ndarray) -> np.ndarray:
        """Of each distinct operation."""
        own = dict(zip(NAMES, np.exp(x), strict=True))
        kind, bandwidth = self._kind, self._card.dram_bytes_per_s
        product = self._product_s * np.where(self._single, own["product_single"], own["product"])
        streamed = self._pass(own, self._streamed, np.exp(x)[self._share]) + self._waiting_s
        found = np.maximum(streamed, self._serial_s)
        plain = self._pass(own, self._moved, own["elementwise"])
        turn = self._pass(own, 2.0 * self._activations, own["elementwise"]) * own["turn"]
        turn = np.where(self._turned, turn, 0.0)
        of = kind == _PRODUCT
        ends = self._pass(own, self._operands, own["product_ends"])
        ends = np.where(self._single | self._vector, 0.0, ends)
        found[of] = (product + ends)[of]
        of = kind == _BMM
        by_peak = self._flops * self._filled / (self._peak * own["bmm"])
        found[of] = np.where(self._single, product, np.maximum(by_peak, plain))[of]
        back = np.where(self._forward, 1.0, own["conv_back"])
        of = kind == _CONV
        scale = np.where(self._pointwise, own["pointwise"], own["conv"])
        found[of] = (np.maximum(product * scale * back, plain) + turn)[of]
        of = kind == _GROUPED
        share = np.where(self._odd, own["grouped_odd"], own["grouped"])
        grouped = self._flops * self._filled / (self._peak * share)
        found[of] = (np.maximum(grouped * back, plain) + turn)[of]
        of = kind == _DEPTHWISE
        share = np.where(self._last, own["depthwise_last"], own["depthwise"])
        vector = self._flops / (self._card.vector_flops * own["depthwise_flops"])
        found[of] = (np.maximum(self._activations / (bandwidth * share), vector) * back)[of]
        of = kind == _ATTENTION
        share = np.where(self._forward, own["attention"], own["attention_back"])
        found[of] = np.maximum(self._flops * self._filled / (self._peak * share), found)[of]
        return found + np.where(kind == _PRODUCT, 0.0, own["gap_s"] * self._gap_share)

    def _pass(self, own: Mapping[str, float], moved: np.ndarray, share: Any) -> np.ndarray:
        held = 1.0 / (1.0 + (moved / (self._card.l2_bytes * own["l2_share"])) ** 4)
        rate = self._card.dram_bytes_per_s * share * (1.0 + (own["l2_rate"] - 1.0) * held)
        return moved / rate


def _kind(op: Op) -> int:
    if op.kind == "gemm":
        return _PRODUCT
    if op.kind == "attention":
        return _ATTENTION if op.fused else _BMM
    if op.kind == "conv":
        return _CONV if op.count == 1 else _DEPTHWISE if op.n == 1 else _GROUPED
    return _STREAM


def _moved(op: Op) -> float:
    return op.weight_bytes + op.weights if op.kind == "pack" else op.bytes


def _share(op: Op) -> str:
    return whole_steps.share_of(op)


def _turned(op: Op) -> bool:
    tensor_cores = ELEMENT_BYTES[op.dtype] == 2.0 or op.dtype == "tfloat32"
    return op.kind == "conv" and tensor_cores and op.layout == "contiguous"


def _peak(device: Gpu, op: Op) -> float:
    if _kind(op) == _ATTENTION:
        return whole_steps.attention_peak(device, op.dtype)
    return device.peak(op.dtype) if _kind(op) != _STREAM else 1.0


def _filled(op: Op) -> float:
    kind = _kind(op)
    if kind == _ATTENTION:
        return whole_steps.attention_filled(op)
    if kind == _BMM:
        return whole_steps.bmm_filled(op)
    return whole_steps.grouped_filled(op) if kind == _GROUPED else 1.0


def _products(device: Gpu, ops: Sequence[Op], kinds: np.ndarray) -> np.ndarray:
    """Seconds of the products of the ops that are or hold one, by the card's own fit."""
    found = np.zeros(len(ops))
    for dtype in {op.dtype for op in ops}:
        single = FAMILIES[dtype] == "single"
        wanted = [
            i for i, op in enumerate(ops)
            if op.dtype == dtype
            and (kinds[i] in (_PRODUCT, _CONV) or (kinds[i] == _BMM and single))
        ]  # fmt: skip
        if wanted:
            shapes = np.array([whole_steps.product_of(ops[i]) for i in wanted], float)
            found[wanted] = device.library.seconds(DENSE, dtype, shapes)
    return found
