"""Systolic arrays: weight-, input- or output-stationary, dense or with N:M-compressed weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.accelerators.base import Accelerator
from hwsim.accelerators.pipelined import PeLoad
from hwsim.device import parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.patterns.n_m import NM
from hwsim.workload import Op

if TYPE_CHECKING:
    import numpy as np

    from hwsim.pipeline.tiles import Machine, Tiles

SUM_BYTES = 4  # partial sums are kept in float32


@dataclass(frozen=True, eq=False)
class Systolic(Accelerator):
    """R × C multiply-add cells; operands move from neighbour to neighbour.

    With A (M × K) · B (K × N), B the weight in forward and grad_input and x in grad_weight:

    - ws: B lies on the array, K on its rows, N on its columns; A streams.
      ⌈K/R⌉·⌈N/C⌉ folds of 2R + C + M − 2 cycles.
    - is: A lies on the array, K on its rows, M on its columns; B streams.
      ⌈K/R⌉·⌈M/C⌉ folds of 2R + C + N − 2 cycles.
    - os: results lie on the array, M on its rows, N on its columns.
      ⌈M/R⌉·⌈N/C⌉ folds of R + C + K − 2 cycles.

    A dense array multiplies zeros like any other number, whatever the mask. If `sparsity_m` is
    above 1, cells pick their partners among m, and a weight that is n of m along the contraction
    is stored and run with K·n/m; a mask that is not keeps the dense kernel. The contraction of
    forward lies along the mask's rows, that of grad_input along its columns (so both gain only
    with a transposable mask), and grad_weight stays dense.

    With `chained`, the next fold's weights are shifted in while one computes and folds follow each
    other without a gap, as in a TPU: M cycles a fold.

    Sources: Samajdar et al. (2018), "SCALE-Sim", arXiv 1811.02883 (folds; equal to version 3.0.0
    to the cycle); Jouppi et al. (2017), "In-Datacenter Performance Analysis of a TPU", ISCA,
    section 2 (`chained`).
    """

    model = "systolic"
    ways = 48
    rows: int = parameter("1", "of the array", at_least=1, at_most=65536, integer=True)
    cols: int = parameter("1", "of the array", at_least=1, at_most=65536, integer=True)
    dataflow: str = parameter("1", "what stays", choices=("ws", "is", "os"))
    arrays: int = parameter(
        "1", "side by side, on successive folds", at_least=1, at_most=1024, integer=True, default=1
    )
    chained: int = parameter(
        "1", "1: folds follow each other without a gap", at_least=0, at_most=1, integer=True,
        default=0,
    )  # fmt: skip
    sparsity_n: int = parameter(
        "1", "nonzeros that cells take of sparsity_m", at_least=1, at_most=64, integer=True,
        default=1,
    )  # fmt: skip
    sparsity_m: int = parameter(
        "1", "1: dense cells only", at_least=1, at_most=64, integer=True, default=1
    )
    output_port_bytes: float = parameter(
        "B/cycle", "from the arrays to the output buffer", above=0.0, default=math.inf
    )

    def __post_init__(self) -> None:
        if self.sparsity_n > self.sparsity_m:
            raise InputError(
                f"sparsity_n: value is {self.sparsity_n}; "
                f"allowed is at most sparsity_m = {self.sparsity_m}"
            )

    @property
    def macs_per_cycle(self) -> int:
        return self.rows * self.cols * self.arrays

    def machine(self) -> Machine:
        import dataclasses

        return dataclasses.replace(
            super().machine(), arrays=self.arrays, lookahead=self.arrays + 1,
            shadow=bool(self.chained),
        )  # fmt: skip

    def products(self, op: Op) -> tuple[Estimate, ...]:
        if self.sparsity_m == 1 or op.weight_shape is None:
            return (self._price(op, compressed=False),)
        reason = self._why_not(op)
        if not reason:
            return self._price(op, compressed=False), self._price(op, compressed=True)
        rejected = self._known.get(reason)  # there are few reasons, and many ops
        if rejected is None:
            kernel = f"{self.sparsity_n}:{self.sparsity_m}"
            rejected = self._known[reason] = Estimate.illegal(kernel, reason)
        return self._price(op, compressed=False, rejected=(rejected,)), rejected

    def array_cycles(self, op: Op) -> int:
        """Cycles of the folds alone, one after the other, memory left out.

        What SCALE-Sim calls total cycles, plus one (it reports the last index); under the kernel
        that `estimate` chooses.
        """
        table = self._table(op)
        return int(table[3].sum() + table[4].sum())

    def tiles(self, op: Op) -> Tiles:
        from hwsim.pipeline.tiles import Tiles

        table = self._table(op)
        return Tiles(*table, names=(op.name or op.kind,) * table.shape[1])

    def pe_load(self, op: Op) -> PeLoad:
        """Multiply-adds of a cell, zeros included; the first one works in every fold."""
        compressed = self.estimate(op).kernel != "dense"
        (_, rows, cols, k, across, stream, products, _), _ = self._arguments(op, compressed)
        if self.dataflow == "os":
            folds, each = -(-stream // rows) * -(-across // cols), k
        else:
            folds, each = -(-k // rows) * -(-across // cols), stream
        mean = k * across * stream * products / self.macs_per_cycle
        return PeLoad("cell (0, 0)", mean, -(-folds * products // self.arrays) * each, "products")

    def _table(self, op: Op) -> np.ndarray:
        from hwsim.accelerators import folds

        compressed = self.estimate(op).kernel != "dense"
        table, _, _ = folds.fastest(*self._arguments(op, compressed), *self._around())
        return table

    def _price(self, op: Op, *, compressed: bool, rejected: tuple[Estimate, ...] = ()) -> Estimate:
        kernel = f"{self.sparsity_n}:{self.sparsity_m}" if compressed else "dense"
        totals = self._run(op, compressed)
        cycles, array, fill, drain, *_ = totals
        # What arrays and port do not do in more than half of the time is waiting for memory.
        busy = (array + fill) / self.arrays + drain
        bound = "memory" if 2 * busy < cycles else "compute"
        return self._price_of_run(op, totals, kernel, bound, rejected)

    def _run(self, op: Op, compressed: bool) -> tuple[int, ...]:
        """Totals of the run, with the cycles of its price: run once a shape, whatever the mask."""
        key = ("run", op.signature, compressed)
        known = self._known.get(key)
        if known is None:
            from hwsim.accelerators import folds

            _, totals, cycles = folds.fastest(*self._arguments(op, compressed), *self._around())
            known = self._known[key] = (int(cycles), *totals.tolist()[1:])
        return known

    def _around(self) -> tuple[Any, ...]:
        """What no op changes: the buffers, the output port and memory."""
        room = (self.weight_buffer_bytes, self.input_buffer_bytes, self.output_buffer_bytes)
        memory = (
            self.output_port_bytes, self.dram_channels, self.channel_bytes_per_cycle,
            self.latency_cycles, self.interleave_bytes, self.arrays, bool(self.chained),
        )  # fmt: skip
        return SUM_BYTES, room, memory

    def _why_not(self, op: Op) -> str:
        """Why the compressed kernel cannot run the product; empty if it can."""
        if op.mask is None:
            return "no mask"
        if op.phase == "grad_weight":
            return "its operands are dense; the mask is on its output"
        axis = 1 if op.phase == "forward" else 0
        if not op.mask.satisfies(self._pattern(axis)):
            along = "rows" if axis else "columns"
            return f"mask is not {self.sparsity_n}:{self.sparsity_m} along its {along}"
        return ""

    def _pattern(self, axis: int) -> NM:
        known = self._known.get(("pattern", axis))
        if known is None:
            known = self._known["pattern", axis] = NM(self.sparsity_n, self.sparsity_m, axis)
        return known

    def _arguments(self, op: Op, compressed: bool) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Shape and bytes of the operands, as `folds.fold_table` takes them."""
        from hwsim.accelerators import folds

        first, second, result, repeats = self._shape(op)
        m, n, k = _dimensions(op)
        if compressed:
            kept, of = self.sparsity_n, self.sparsity_m
            k = -(-k // of) * kept
            values = -(-second * kept // of)
            index_bits = max(1, (of - 1).bit_length())
            second = values + values * index_bits // (8 * op.itemsize)
        kind = folds.OUTPUT if self.dataflow == "os" else folds.STATIONARY
        if self.dataflow == "is":
            across, stream, held, streamed = m, n, first, second
        else:
            across, stream, held, streamed = n, m, second, first
        shape = (
            kind, self.rows, self.cols, k, across, stream, op.count * repeats, bool(self.chained),
        )  # fmt: skip
        return shape, (held, streamed, result)

    def _serial_fill(self, fill: int) -> int:
        return 0 if self.chained else fill


def _dimensions(op: Op) -> tuple[int, int, int]:
    """(M, N, K) of A (M × K) · B (K × N) as the phase runs it, B the weight or x."""
    if op.phase == "grad_input":
        return op.m, op.k, op.n
    if op.phase == "grad_weight":
        return op.n, op.k, op.m
    return op.m, op.n, op.k


MODEL = Systolic
