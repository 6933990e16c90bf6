"""Flexible multipliers under a distribution network and a reduction tree, fed with real masks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.device import parameter
from hwsim.devices._accelerator import Accelerator
from hwsim.devices._pipelined import PeLoad
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import Op

if TYPE_CHECKING:
    from hwsim.tiles import Tiles


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
        if op.mask is None:
            return (self._price(op),)
        # No mask changes the dense kernel: it is priced once for the op's shape.
        (dense,) = self._unmasked.get(op.signature) or self.kernels(op.with_mask(None))
        sparse = self._price(op, (dense,))
        if sparse.seconds <= dense.seconds:
            return sparse, dense
        if self.prefetch:
            op.mask.prices(self)["lead", op.signature] = self._leads["lead", op.signature]
        sparse = dataclasses.replace(sparse, rejected=())
        return dataclasses.replace(dense, flops=op.flops, rejected=(sparse,)), sparse

    def _price(self, op: Op, rejected: tuple[Estimate, ...] = ()) -> Estimate:
        found = self._priced(op)
        totals, (*_, waiting, waves) = found[:9], found[9:]
        offered = totals[1] * self.macs_per_cycle
        bound = "compute"
        if waiting > 0.5 * waves:
            bound = "port"
        elif op.flops < offered:  # under half of the multiply-adds that the arrays offered
            bound = "imbalance"
        kernel = "dense"
        if op.mask is not None:
            kernel = "clusters" if op.phase != "grad_weight" else "sampled clusters"
        return self._price_of_run(op, totals, kernel, bound, rejected)

    def _chosen(self, op: Op) -> Op:
        """The op as its fastest kernel runs it: without its mask if that is the dense one."""
        return op.with_mask(None) if self.estimate(op).kernel == "dense" else op

    def rows(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """Per stationary row: multipliers that it needs, and vectors that it meets (int64).

        forward: nonzeros of the weight's rows, m vectors. grad_input: of its columns, m vectors.
        grad_weight: m elements of dy, one vector per nonzero of the mask's row.
        """
        mask = op.mask
        if op.phase == "grad_weight":
            met = self._filled(op.n * op.count, op.k) if mask is None else mask.row_nnz
            return self._filled(len(met), op.m), met
        if mask is None:
            length, width = (op.k, op.n) if op.phase == "grad_input" else (op.n, op.k)
            sizes = self._filled(length * op.count, width)
        elif op.phase == "grad_input":
            sizes = mask.col_nnz
            if op.count > 1:  # a group's columns meet only the group's rows
                groups = mask.array.reshape(op.count, -1, mask.shape[1])
                sizes = np.count_nonzero(groups, axis=1).ravel()
        else:
            sizes = mask.row_nnz
        return sizes, self._filled(len(sizes), op.m)

    def facts(self, op: Op) -> dict[str, int]:
        """Under its mask: waves, folded rows, longest wave, clusters, cycles lost to ports."""
        names = ("waves", "folded_rows", "longest_wave", "clusters", "port_cycles", "wave_cycles")
        return dict(zip(names, self._priced(op)[9:], strict=True))

    def pe_load(self, op: Op) -> PeLoad:
        """Cycles of a wave of multipliers; the longest one holds the units of its round up."""
        facts = self.facts(self._chosen(op))
        mean = facts["wave_cycles"] / max(facts["waves"], 1)
        return PeLoad("the longest wave", mean, facts["longest_wave"], "cycles")

    def tiles(self, op: Op) -> Tiles:
        from hwsim.devices import _flexible
        from hwsim.tiles import Tiles

        arguments = (*self._arguments(self._chosen(op)), np.zeros(6, np.int64))
        table = _flexible.tile_table(*arguments)
        return Tiles(*table, names=(op.name or op.kind,) * table.shape[1])

    def _priced(self, op: Op) -> tuple[int, ...]:
        known = self._known.get("priced")
        if known is None:
            from hwsim.devices import _flexible

            memory = (
                self.dram_channels, self.channel_bytes_per_cycle, self.latency_cycles,
                self.interleave_bytes,
            )  # fmt: skip
            known = self._known["priced"] = (_flexible.priced, memory)
        priced, memory = known
        return priced(*self._arguments(op), *memory)

    def _arguments(self, op: Op) -> tuple[Any, ...]:
        sizes, streams = self.rows(op)
        first, second, result, repeats = self._shape(op)
        bits_per_row = 0
        if op.phase == "grad_weight":
            held, streamed = first, second
            if op.mask is not None:
                result = result * op.nnz // op.weights
        else:
            held, streamed = second, first
            if op.mask is not None:
                held = held * op.nnz // op.weights
                bits_per_row = op.weights // len(sizes)
        return (
            sizes, streams, self.multipliers, self._delays(), self.reduction_bw,
            self.multipliers // self.distribution_bw, self.lead_cycles, self.units, repeats,
            held, streamed, result, bits_per_row,
            self.weight_buffer_bytes, self.input_buffer_bytes, self.output_buffer_bytes,
        )  # fmt: skip

    def _filled(self, count: int, value: int) -> np.ndarray:
        """`count` times `value`; kept, since every layer of a size asks again."""
        known = self._known.get((count, value))
        if known is None:
            known = self._known[count, value] = np.full(count, value, dtype=np.int64)
            known.flags.writeable = False
        return known

    def _delays(self) -> np.ndarray:
        known = self._known.get("delays")
        if known is None:
            from hwsim.devices._adder_tree import delays_by_size

            known = self._known["delays"] = delays_by_size(self.multipliers)
        return known


MODEL = SigmaLike
