"""Flexible multipliers under a distribution network and a reduction tree, fed with real masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.accelerators import scaled
from hwsim.accelerators.base import Accelerator
from hwsim.accelerators.pipelined import PeLoad
from hwsim.bounded import BoundedDict
from hwsim.device import parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import PRODUCTS, Op

if TYPE_CHECKING:
    from hwsim.pipeline.tiles import Tiles


@dataclass(frozen=True, eq=False)
class SigmaLike(Accelerator):
    """SIGMA: nonzeros of whole rows fill the multipliers, clusters of unequal size are summed.

    The weight's rows (forward), its columns (grad_input) or the gradient's rows (grad_weight) stay
    in the multipliers; vectors stream through. Empty rows cost nothing. grad_weight is sampled: a
    row streams only the vectors at which its mask has a one. Zeros in the streamed operand are
    sent all the same, as in STONNE. The dense kernel keeps every weight, zeros too, and sends no
    bitmap; it is taken where that is faster. Its `flops` are those that the mask leaves, as on
    every array that multiplies zeros like other numbers.

    A wave costs, with N vectors and s = multipliers / distribution_bw, s·N plus the latency of its
    slowest cluster; results that leave through the same port wait for each other, so four equal
    clusters take 2N. With s = 1 cycles equal STONNE's; with s > 1 two clusters that share a
    distribution port are taken to need separate deliveries (within 0.5 % of STONNE).

    Sources: Qin et al. (2020), "SIGMA", HPCA; STONNE (Muñoz-Martínez et al. 2021, IISWC).
    """

    model = "sigma_like"
    ways = 400  # a wave more or less is a tenth of a price, and befalls one mask in a hundred
    multipliers: int = parameter(
        "1", "of one unit, a power of two", at_least=2, at_most=65536, integer=True
    )
    distribution_bw: int = parameter(
        "elements/cycle", "into one unit, a power of two", at_least=1, integer=True
    )
    reduction_bw: int = parameter(
        "elements/cycle", "results out of one unit", at_least=1, at_most=65536, integer=True
    )
    units: int = parameter(
        "1", "that work in step on successive waves", at_least=1, at_most=65536, integer=True,
        default=1,
    )  # fmt: skip
    _rows: BoundedDict = field(default_factory=lambda: BoundedDict(64), init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("multipliers", "distribution_bw"):
            value = getattr(self, name)
            if value & (value - 1):
                raise InputError(f"{name}: value is {value}; allowed is a power of two")
        for name in ("distribution_bw", "reduction_bw"):
            if getattr(self, name) > self.multipliers:
                raise InputError(
                    f"{name}: value is {getattr(self, name)}; allowed is at most "
                    f"multipliers = {self.multipliers}"
                )

    @property
    def macs_per_cycle(self) -> int:
        return self.multipliers * self.units

    @property
    def lead_cycles(self) -> int:
        """From the start of a wave to its first sum, less the tree: configure, fill, distribute."""
        step = self.multipliers // self.distribution_bw
        return 2 * step + 2 + (1 if step > 1 else 0)

    def products(self, op: Op) -> tuple[Estimate, ...]:
        (found,) = self._products((op,))
        return found

    def _rank_all(self, ops: Sequence[Op]) -> list[tuple[Estimate, ...]]:
        # All products in one compiled call: a step under fresh masks has hundreds.
        cells = self.macs_per_cycle
        walked = [op.kind in PRODUCTS and not scaled.is_huge(op, cells) for op in ops]
        found = iter(self._products([op for op, here in zip(ops, walked, strict=True) if here]))
        return [
            next(found) if here else self._ranked(op) for op, here in zip(ops, walked, strict=True)
        ]

    def _products(self, ops: Sequence[Op]) -> list[tuple[Estimate, ...]]:
        """The kernels of matrix products, the fastest first."""
        found: list[tuple[Estimate, ...]] = []
        left = [self._under_mask(op) for op in ops]
        runs, _ = self._runs(ops, left)
        for op, run, (flops, _, known) in zip(ops, runs, left, strict=True):
            if op.mask is None:
                found.append((self._price(op, run, flops, known, ()),))
                continue
            # No mask changes the dense kernel: it is priced once for the op's shape.
            (dense,) = self._unmasked.get(op.signature) or self.kernels(op.with_mask(None))
            sparse = self._price(op, run, flops, known, (dense,))
            if sparse.seconds <= dense.seconds:
                found.append((sparse, dense))
                continue
            if self.prefetch:
                known["lead", op.signature] = self._leads.get(("lead", op.signature), (0.0, 0.0))
            sparse = dataclasses.replace(sparse, rejected=())
            dense = dataclasses.replace(dense, flops=flops, rejected=(sparse,))
            found.append((dense, sparse))
        return found

    def _price(
        self, op: Op, run: Sequence[float], flops: int, known: dict[Any, Any],
        rejected: tuple[Estimate, ...],
    ) -> Estimate:  # fmt: skip
        """An Estimate from what `flexible.priced` found; keeps what prefetch can save."""
        moved, array, from_memory, stuck, waiting, waves = run[5:]
        bound = "compute"
        if from_memory or 2 * array < run[0] * self.clock_hz:  # waits for it, mostly
            bound = "memory"
        elif waiting > 0.5 * waves:
            bound = "port"
        elif flops < array * self.macs_per_cycle:  # under half of the multiply-adds offered
            bound = "imbalance"
        kernel = "dense"
        if op.mask is not None:
            kernel = "clusters" if op.phase != "grad_weight" else "sampled clusters"
        return self._estimate_of_run(
            op, run[:5], moved, flops, known, kernel, bound, stuck, rejected
        )  # fmt: skip

    def _chosen(self, op: Op) -> Op:
        """The op as its fastest kernel runs it: without its mask if that is the dense one."""
        return op.with_mask(None) if self.estimate(op).kernel == "dense" else op

    def rows(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """Per stationary row: multipliers that it needs, and vectors that it meets (int64).

        forward: nonzeros of the weight's rows, m vectors. grad_input: of its columns, m vectors.
        grad_weight: m elements of dy, one vector per nonzero of the mask's row.
        """
        of_rows = self._counted(op)
        same = np.full(len(of_rows), op.m, np.int64)
        return (same, of_rows) if op.phase == "grad_weight" else (of_rows, same)

    def _counted(self, op: Op) -> np.ndarray:
        """Per stationary row, what the mask decides: multipliers, or vectors in grad_weight."""
        mask = op.mask
        if mask is None:
            length, width = (op.k, op.n) if op.phase == "grad_input" else (op.n, op.k)
            return self._filled(length * op.count, width)
        if op.phase != "grad_input":
            return mask.row_nnz
        if op.count > 1:  # a group's columns meet only the group's rows
            groups = mask.array.reshape(op.count, -1, mask.shape[1])
            return np.count_nonzero(groups, axis=1).ravel()
        return mask.col_nnz

    def facts(self, op: Op) -> dict[str, int]:
        """Under its mask: waves, folded rows, longest wave, clusters, cycles lost to ports."""
        names = ("waves", "folded_rows", "longest_wave", "clusters", "port_cycles", "wave_cycles")
        _, (facts,) = self._runs((op,), [self._under_mask(op)])
        return dict(zip(names, facts.tolist(), strict=True))

    def pe_load(self, op: Op) -> PeLoad:
        """Cycles of a wave of multipliers; the longest one holds the units of its round up."""
        facts = self.facts(self._chosen(op))
        mean = facts["wave_cycles"] / max(facts["waves"], 1)
        return PeLoad("the longest wave", mean, facts["longest_wave"], "cycles")

    def tiles(self, op: Op) -> Tiles:
        from hwsim.accelerators import flexible
        from hwsim.pipeline.tiles import Tiles

        op = self._chosen(op)
        sizes, streams = self.rows(op)
        table, _, _ = flexible.fastest_table(
            sizes, streams, op.phase == "grad_weight", self._operands(op, len(sizes)),
            *self._around(), np.zeros(6, np.int64),
        )  # fmt: skip
        return Tiles(*table, names=(op.name or op.kind,) * table.shape[1])

    def _runs(
        self, ops: Sequence[Op], left: Sequence[tuple[int, int, dict]]
    ) -> tuple[list[list[float]], np.ndarray]:
        """What `flexible.priced` finds of each product, and its facts."""
        if not ops:
            return [], np.zeros((0, 6), np.int64)
        from hwsim.accelerators import flexible

        counted = [self._counted(op) for op in ops]
        lines = [
            (len(of_rows), op.m, op.phase == "grad_weight", *self._operands(op, len(of_rows)))
            for op, of_rows in zip(ops, counted, strict=True)
        ]
        work = [(flops, moves) for flops, moves, _ in left]
        found, facts = flexible.priced(
            np.concatenate(counted), np.array(lines, np.int64), np.array(work, np.float64),
            *self._around(), self._known.get("constants") or self._constants(),
        )  # fmt: skip
        return found.tolist(), facts

    def _around(self) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """What no op changes: the multipliers, the buffers around them, and memory."""
        array = (
            self.multipliers, self._delays(), self.reduction_bw,
            self.multipliers // self.distribution_bw, self.lead_cycles, self.units,
        )  # fmt: skip
        room = (self.weight_buffer_bytes, self.input_buffer_bytes, self.output_buffer_bytes)
        memory = (
            self.dram_channels, self.channel_bytes_per_cycle, self.latency_cycles,
            self.interleave_bytes,
        )  # fmt: skip
        return array, room, memory

    def _operands(self, op: Op, rows: int) -> tuple[int, int, int, int, int]:
        """Repeats, bytes held, streamed and of the result, and bits of bitmap per row."""
        first, second, result, repeats = self._shape(op)
        mask = op.mask
        if op.phase == "grad_weight":
            kept = result if mask is None else result * mask.nnz // op.weights
            return repeats, first, second, kept, 0
        if mask is None:
            return repeats, second, first, result, 0
        return repeats, second * mask.nnz // op.weights, first, result, op.weights // rows

    def _filled(self, count: int, value: int) -> np.ndarray:
        """`count` times `value`; kept, since every layer of a size asks again."""
        known = self._rows.get((count, value))
        if known is None:
            known = self._rows[count, value] = np.full(count, value, dtype=np.int64)
            known.flags.writeable = False
        return known

    def _delays(self) -> np.ndarray:
        known = self._known.get("delays")
        if known is None:
            from hwsim.accelerators.adder_tree import delays_by_size

            known = self._known["delays"] = delays_by_size(self.multipliers)
        return known


MODEL = SigmaLike
