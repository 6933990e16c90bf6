"""Why a layer costs what it costs on a device, and which change of its mask would help most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hwsim.accelerators.pipelined import PeLoad, Pipelined
from hwsim.answers.timeline import layer_timeline
from hwsim.device import Device, parameters_of
from hwsim.errors import InputError, unknown
from hwsim.estimate import Estimate
from hwsim.mask import Mask
from hwsim.workload import PRODUCTS, Op, Workload

_MOST_TILES = 20_000  # whose timeline is drawn for an explanation


@dataclass(frozen=True)
class Balance:
    """Nonzeros per row or column: `mean / max` is 1 when all have the same number.

    Attributes:
        slowest: index of the row or column with most nonzeros; the first of several.
        empty: how many have none.
    """

    mean: float
    max: int
    slowest: int
    empty: int

    @property
    def balance(self) -> float:
        """Mean over maximum of the loads; 1 is even."""
        return self.mean / self.max if self.max else 1.0


@dataclass(frozen=True)
class Change:
    """Another mask for the layer, priced: what it is, its nonzeros, seconds, and the gain."""

    what: str
    nnz: int
    seconds: float
    speedup: float


@dataclass(frozen=True)
class Explanation:
    """One product of a layer on a device.

    Attributes:
        estimate: its price.
        roofline_s: what no kernel can beat.
        rows, columns: balance of the mask over outputs and inputs.
        pes: how evenly the work lies on the processing elements; None for devices without a
            pipeline.
        occupancy: busy share of each resource; empty for devices without a pipeline.
        limits: seconds of the timeline's longest chain by bound; empty without a pipeline, and of
            more than 20,000 tiles.
        changes: masks that would cost less or more, the best first.
        settings: the same mask on the device with another choice for a parameter that has named
            ones (dataflow, placement), the best first.
    """

    op: Op
    estimate: Estimate
    roofline_s: float
    rows: Balance
    columns: Balance
    pes: PeLoad | None
    occupancy: dict[str, float]
    changes: tuple[Change, ...]
    settings: tuple[Change, ...]
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def best_change(self) -> Change | None:
        """The change that helps most; None if none does."""
        gains = [c for c in self.changes if c.speedup > 1.0]
        return gains[0] if gains else None


def explain(device: Device, op: Op, rng: np.random.Generator | None = None) -> Explanation:
    """Explain one product. `rng` draws the masks of the changes (default: seed 0).

    Raises:
        InputError: an op that is no product of a maskable weight.
    """
    if op.kind not in PRODUCTS or op.weight_shape is None:
        raise InputError(
            f"op {op.name!r}: kind is {op.kind!r}; allowed is a product with a maskable weight"
        )
    return _explain(device, op, _other_masks(device, _mask_of(op), rng))


def _mask_of(op: Op) -> Mask:
    """The op's mask, or one without zeros."""
    assert op.weight_shape is not None
    return op.mask or Mask(np.ones(op.weight_shape, dtype=bool), copy=False)


def _other_masks(device: Device, mask: Mask, rng: np.random.Generator | None) -> dict[str, Mask]:
    """What could be in the mask's place, by what it is."""
    generator = np.random.default_rng(0) if rng is None else rng
    made = {what: make(mask, generator) for what, make in _changes(device).items()}
    return {what: other for what, other in made.items() if other is not None and other != mask}


def _explain(device: Device, op: Op, others: Mapping[str, Mask]) -> Explanation:
    mask, estimate = _mask_of(op), device.estimate(op)
    occupancy: dict[str, float] = {}
    limits: dict[str, float] = {}
    pes = None
    if isinstance(device, Pipelined):
        occupancy = device.run(op).occupancy(device.machine())
        pes = device.pe_load(op)
        if len(device.tiles(op)) <= _MOST_TILES:
            limits = layer_timeline(device, op).limits()
    changes = []
    for what, other in others.items():
        seconds = device.estimate(op.with_mask(other)).seconds
        gain = estimate.seconds / seconds if seconds else 1.0
        changes.append(Change(what, other.nnz, seconds, gain))
    changes.sort(key=lambda c: (c.seconds, c.what))
    return Explanation(
        op, estimate, device.roofline(op), _balance(mask.row_nnz), _balance(mask.col_nnz),
        pes, occupancy, tuple(changes), _settings(device, op, estimate.seconds), limits,
    )  # fmt: skip


def _settings(device: Device, op: Op, seconds: float) -> tuple[Change, ...]:
    """The op on the device with each other choice of its named settings."""
    found = []
    for name, limits in parameters_of(type(device)).items():
        if name == "fusion":  # of a step, not of an op
            continue
        for choice in limits["choices"] or ():
            if choice == getattr(device, name):
                continue
            other = replace(device, **{name: choice}).estimate(op).seconds
            gain = seconds / other if other else 1.0
            found.append(Change(f"{name} {choice}", op.nnz, other, gain))
    return tuple(sorted(found, key=lambda c: (c.seconds, c.what)))


def explain_layer(
    device: Device, workload: Workload, layer: str, rng: np.random.Generator | None = None
) -> list[Explanation]:
    """Every product of a layer: forward, grad_input, grad_weight.

    Raises:
        InputError: a layer that the workload does not have; the valid names are listed.
    """
    if layer not in workload.layers:
        raise InputError(unknown("layer", layer, sorted(workload.layers)))
    products = [
        op
        for op in workload.ops
        if op.name == layer and op.kind in PRODUCTS and op.weight_shape is not None
    ]
    # The phases have one mask, so what could be in its place is made once.
    others = _other_masks(device, _mask_of(products[0]), rng)
    return [_explain(device, op, others) for op in products]


def layer_changes(phases: Sequence[Explanation]) -> tuple[Change, ...]:
    """The masks of `Explanation.changes` priced for all phases of a layer, the best first."""
    return _over_phases(phases, [p.changes for p in phases])


def layer_settings(phases: Sequence[Explanation]) -> tuple[Change, ...]:
    """The settings of `Explanation.settings` priced for all phases of a layer, the best first."""
    return _over_phases(phases, [p.settings for p in phases])


def _over_phases(
    phases: Sequence[Explanation], changes: Sequence[Sequence[Change]]
) -> tuple[Change, ...]:
    now = sum(p.estimate.seconds for p in phases)
    found = []
    for what in [c.what for c in changes[0]]:
        same = [c for of_phase in changes for c in of_phase if c.what == what]
        seconds = sum(c.seconds for c in same)
        found.append(Change(what, same[0].nnz, seconds, now / seconds if seconds else 1.0))
    return tuple(sorted(found, key=lambda c: (c.seconds, c.what)))


def _balance(counts: np.ndarray) -> Balance:
    return Balance(
        float(counts.mean()), int(counts.max()), int(counts.argmax()),
        int(np.count_nonzero(counts == 0)),
    )  # fmt: skip


_Maker = Callable[[Mask, np.random.Generator], Mask | None]


def _changes(device: Device) -> dict[str, _Maker]:
    """The masks to try: the first ones have the nonzeros of the one at hand."""
    makers: dict[str, _Maker] = {
        "rows of equal nnz": _equal_rows,
        "columns of equal nnz": _equal_columns,
        "outputs in order of nnz": _sorted_rows,
        "whole neurons removed": _few_rows,
        "a tenth fewer weights": _fewer,
    }
    n, m = getattr(device, "sparsity_n", 1), getattr(device, "sparsity_m", 1)
    for kept, of in {(2, 4), (n, m)} - {(1, 1)}:
        makers[f"{kept}:{of} along inputs"] = lambda mask, rng, a=kept, b=of: _n_of_m(
            mask, rng, a, b
        )
        makers[f"transposable {kept}:{of}"] = lambda mask, rng, a=kept, b=of: _transposable(
            mask, rng, a, b
        )
    return makers


def _spread(total: int, count: int) -> np.ndarray:
    """`total` in `count` shares that differ by at most one."""
    return np.diff(np.arange(count + 1) * total // count)


def _equal_rows(mask: Mask, rng: np.random.Generator) -> Mask:
    rows, columns = mask.shape
    order = rng.random((rows, columns), dtype=np.float32).argsort(axis=1).argsort(axis=1)
    return Mask(order < _spread(mask.nnz, rows)[:, None], copy=False)


def _equal_columns(mask: Mask, rng: np.random.Generator) -> Mask:
    rows, columns = mask.shape
    order = rng.random((rows, columns), dtype=np.float32).argsort(axis=0).argsort(axis=0)
    return Mask(order < _spread(mask.nnz, columns)[None, :], copy=False)


def _sorted_rows(mask: Mask, rng: np.random.Generator) -> Mask:
    return Mask(mask.array[np.argsort(-mask.row_nnz, kind="stable")], copy=False)


def _few_rows(mask: Mask, rng: np.random.Generator) -> Mask:
    """The same nonzeros in as few rows as can hold them: fewer neurons, each dense."""
    flat = np.zeros(mask.size, dtype=bool)
    flat[: mask.nnz] = True
    return Mask(flat.reshape(mask.shape), copy=False)


def _fewer(mask: Mask, rng: np.random.Generator) -> Mask:
    """A tenth of the weights dropped at random, the same share in expectation of each row."""
    active = np.flatnonzero(mask.array)
    flat = mask.array.ravel().copy()
    flat[rng.choice(active, size=len(active) // 10, replace=False)] = False
    return Mask(flat.reshape(mask.shape), copy=False)


def _transposable(mask: Mask, rng: np.random.Generator, n: int, m: int) -> Mask | None:
    """n of m along inputs and outputs: diagonals of m × m blocks, each block turned at random."""
    rows, columns = mask.shape
    if rows % m or columns % m:
        return None
    turns = np.kron(rng.integers(0, m, (rows // m, columns // m)), np.ones((m, m), dtype=np.int64))
    diagonals = np.arange(rows)[:, None] + np.arange(columns)[None, :] + turns
    allowed = np.flatnonzero((diagonals % m < n).ravel())
    flat = np.zeros(mask.size, dtype=bool)
    flat[rng.permutation(allowed)[: mask.nnz]] = True
    return Mask(flat.reshape(mask.shape), copy=False)


def _n_of_m(mask: Mask, rng: np.random.Generator, n: int, m: int) -> Mask | None:
    """n of m along the inputs with the same nonzeros, or all that n of m allows."""
    rows, columns = mask.shape
    if columns % m:
        return None
    scores = rng.random((rows, columns // m, m), dtype=np.float32)
    order = scores.argsort(axis=2).argsort(axis=2)
    allowed = np.flatnonzero((order < n).ravel())
    flat = np.zeros(mask.size, dtype=bool)
    flat[rng.permutation(allowed)[: mask.nnz]] = True
    return Mask(flat.reshape(mask.shape), copy=False)
