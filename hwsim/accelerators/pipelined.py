"""Devices whose matrix products run as tiles through the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hwsim.device import Device, parameter
from hwsim.errors import InputError
from hwsim.workload import PRODUCTS, Op, Workload

if TYPE_CHECKING:
    from hwsim.pipeline.tiles import Machine, PipelineRun, Tiles


@dataclass(frozen=True)
class PeLoad:
    """How evenly a product's work lies on the processing elements.

    Attributes:
        slowest: the element (or wave of them) with most work.
        mean, max: its work on average and at most, in `unit`.
    """

    slowest: str
    mean: float
    max: float
    unit: str

    @property
    def balance(self) -> float:
        """mean / max: 1 when all have as much to do."""
        return self.mean / self.max if self.max else 1.0


@dataclass(frozen=True, eq=False)
class Pipelined(Device):
    """A device with a `machine`, and `tiles` of every product for it.

    Attributes:
        filling: the bound that filling an array counts as; see `hwsim.answers.timeline.Timeline`.
    """

    filling: ClassVar[str] = "compute"

    clock_hz: float = parameter("Hz", "of array and buffers", above=0.0, at_most=1e15)

    def machine(self) -> Machine:
        """What the tiles contend for."""
        raise TypeError(f"{type(self).__name__} must define machine()")

    def tiles(self, op: Op) -> Tiles:
        """The tiles of a product under its fastest kernel: what the pipeline runs."""
        raise TypeError(f"{type(self).__name__} must define tiles(op)")

    def step_tiles(self, workload: Workload) -> Iterator[tuple[Op, Tiles]]:
        """The products of a step in order, each with its tiles there."""
        for op in workload.ops:
            if op.kind in PRODUCTS:
                yield op, self.tiles(op)

    def pe_load(self, op: Op) -> PeLoad:
        """The work of the processing elements under the product's fastest kernel."""
        raise TypeError(f"{type(self).__name__} must define pe_load(op)")

    def run(self, op: Op, *, trace: bool = False) -> PipelineRun:
        """The pipeline's run of a product; with `trace`, by the reference, with its events.

        Raises:
            InputError: an op that is no product, or a buffer smaller than a tile.
        """
        from hwsim.pipeline import fast

        if op.kind not in PRODUCTS:
            raise InputError(f"op: kind is {op.kind!r}; allowed: {', '.join(PRODUCTS)}")
        return fast.simulate(self.machine(), self.tiles(op), trace=trace)
