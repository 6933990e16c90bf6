"""What a device says about an op: time, its interval, its kernel and its bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hwsim import units
from hwsim.display import Printed, TextTable

BOUNDS = ("compute", "memory", "gather", "launch", "imbalance", "port", "none")


@dataclass(frozen=True, init=False, repr=False)
class Estimate(Printed):
    """The price of one op under one kernel, or the sum of many.

    Attributes:
        seconds, low_s, high_s: expected time and its interval. A sum adds the ends, as if all
            errors pointed the same way: it never claims more certainty than its parts.
        cycles: of the device's own clock.
        bytes: moved between the device and its main memory.
        flops: performed, 2 per multiply-add.
        kernel: which kernel was priced; in a sum, the kernel with most of the time.
        bound: what limits it, one of BOUNDS; in a sum, the bound with most of the time.
        legal: whether the kernel can run the op; if not, `reason` says why and `seconds` is inf.
        verified: whether a real kernel has been held against this price.
        rejected: the other kernels of the op, slower or not legal.
        by_bound, by_kernel: seconds per bound and per kernel.
    """

    seconds: float
    low_s: float
    high_s: float
    cycles: float
    bytes: float
    flops: float
    kernel: str
    bound: str
    legal: bool = True
    reason: str = ""
    verified: bool = True
    rejected: tuple[Estimate, ...] = ()
    by_bound: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    by_kernel: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __init__(
        self,
        seconds: float,
        low_s: float,
        high_s: float,
        cycles: float,
        bytes: float,
        flops: float,
        kernel: str,
        bound: str,
        legal: bool = True,
        reason: str = "",
        verified: bool = True,
        rejected: tuple[Estimate, ...] = (),
        by_bound: dict[str, float] | None = None,
        by_kernel: dict[str, float] | None = None,
    ) -> None:
        # All at once: a frozen class sets its attributes one by one, which takes thrice as long,
        # and a step under fresh masks makes hundreds of these.
        content = {
            "seconds": seconds, "low_s": low_s, "high_s": high_s, "cycles": cycles,
            "bytes": bytes, "flops": flops, "kernel": kernel, "bound": bound, "legal": legal,
            "reason": reason, "verified": verified, "rejected": rejected,
            "by_bound": by_bound or {bound: seconds}, "by_kernel": by_kernel or {kernel: seconds},
        }  # fmt: skip
        object.__setattr__(self, "__dict__", content)

    @classmethod
    def zero(cls) -> Estimate:
        """Costs nothing: the neutral element of the sum."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "none", "none")

    @classmethod
    def illegal(cls, kernel: str, reason: str) -> Estimate:
        """A kernel that cannot run the op, and why."""
        never = math.inf
        return cls(never, never, never, never, 0.0, 0.0, kernel, "none", False, reason)

    @classmethod
    def total(cls, estimates: Iterable[Estimate]) -> Estimate:
        """The sum, in order: one after the other, no overlap between the parts."""
        seconds = low = high = cycles = moved = flops = 0.0
        verified = True
        by_bound: dict[str, float] = {}
        by_kernel: dict[str, float] = {}
        for e in estimates:
            seconds += e.seconds
            low += e.low_s
            high += e.high_s
            cycles += e.cycles
            moved += e.bytes
            flops += e.flops
            verified = verified and e.verified
            for bound, s in e.by_bound.items():
                by_bound[bound] = by_bound.get(bound, 0.0) + s
            for kernel, s in e.by_kernel.items():
                by_kernel[kernel] = by_kernel.get(kernel, 0.0) + s
        if not by_bound:
            return cls.zero()
        return cls(
            seconds, low, high, cycles, moved, flops,
            _largest(by_kernel), _largest(by_bound), verified=verified,
            by_bound=by_bound, by_kernel=by_kernel,
        )  # fmt: skip

    def as_table(self) -> TextTable:
        """Time with its interval, what it is spent on, and what was moved and computed."""
        rows = [("time", units.seconds(self.seconds), units.interval(self.low_s, self.high_s))]
        for label, parts in (("bound", self.by_bound), ("kernel", self.by_kernel)):
            for name, seconds in sorted(parts.items(), key=lambda part: (-part[1], part[0])):
                if seconds and self.seconds:
                    share = units.percent(seconds / self.seconds)
                    rows.append((f"{label} {name}", units.seconds(seconds), share))
        rows.append(("moved", units.quantity(self.bytes, "B"), ""))
        rows.append(("performed", units.quantity(self.flops, "FLOP"), ""))
        if not self.legal:
            return TextTable("not possible", ("kernel", ""), [(self.kernel, self.reason)])
        note = "" if self.verified else "unverified: no real kernel has been held against it"
        return TextTable("estimate", ("", "", "interval or share"), rows, note)

    def __repr__(self) -> str:
        if not self.legal:
            return f"Estimate(not possible, kernel={self.kernel!r}, reason={self.reason!r})"
        return (
            f"Estimate({units.seconds(self.seconds)}, {units.interval(self.low_s, self.high_s)}, "
            f"kernel={self.kernel!r}, bound={self.bound!r}, verified={self.verified})"
        )

    def scaled(self, times: float) -> Estimate:
        """The same work done `times` times."""
        return Estimate(
            self.seconds * times, self.low_s * times, self.high_s * times,
            self.cycles * times, self.bytes * times, self.flops * times,
            self.kernel, self.bound, self.legal, self.reason, self.verified, self.rejected,
            {b: s * times for b, s in self.by_bound.items()},
            {k: s * times for k, s in self.by_kernel.items()},
        )  # fmt: skip

    def __add__(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            return NotImplemented
        return Estimate.total((self, other))


def _largest(seconds: dict[str, float]) -> str:
    """The name with most seconds; the first in the alphabet among equals."""
    return min(seconds, key=lambda name: (name == "none", -seconds[name], name))
