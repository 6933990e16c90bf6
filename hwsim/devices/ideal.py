"""The bound of the idea itself: arithmetic alone, and only that of active weights."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.device import Device, parameter
from hwsim.estimate import Estimate
from hwsim.workload import Op


@dataclass(frozen=True, eq=False)
class Ideal(Device):
    """Dense time × density of what is maskable; everything else dense.

    A machine that does `peak_flops` operations a second on any pattern, is never starved of data
    and pays nothing for indices, launches or imbalance. This is what counting FLOPs assumes; no
    real machine keeps up with it, and every speed-up claimed from FLOPs alone is its speed-up.
    """

    model = "ideal"
    peak_flops: float = parameter("FLOP/s", "multiply-adds count twice", above=0.0)
    clock_hz: float = parameter("Hz", "turns seconds into cycles", above=0.0)

    def price(self, op: Op) -> tuple[Estimate, ...]:
        seconds = self.roofline(op)
        bound = "compute" if seconds else "none"
        return (
            Estimate(
                seconds, seconds, seconds, self.cycles(seconds), op.bytes, op.flops,
                "arithmetic", bound,
            ),
        )  # fmt: skip

    def roofline(self, op: Op) -> float:
        return op.flops / self.peak_flops


MODEL = Ideal
