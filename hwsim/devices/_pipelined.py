"""Devices whose matrix products run as tiles through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.workload import PRODUCTS, Op

if TYPE_CHECKING:
    from hwsim.tiles import Machine, Run, Tiles


@dataclass(frozen=True, eq=False)
class Pipelined(Device):
    """A device with a `machine`, and `tiles` of every product for it."""

    def machine(self) -> Machine:
        """What the tiles contend for."""
        raise TypeError(f"{type(self).__name__} must define machine()")

    def tiles(self, op: Op) -> Tiles:
        """The tiles of a product under its fastest kernel: what the pipeline runs."""
        raise TypeError(f"{type(self).__name__} must define tiles(op)")

    def run(self, op: Op, *, trace: bool = False) -> Run:
        """The pipeline's run of a product; with `trace`, by the reference, with its events.

        Raises:
            InputError: an op that is no product, or a buffer smaller than a tile.
        """
        from hwsim import fastpath

        if op.kind not in PRODUCTS:
            raise InputError(f"op: kind is {op.kind!r}; allowed: {', '.join(PRODUCTS)}")
        return fastpath.simulate(self.machine(), self.tiles(op), trace=trace)
