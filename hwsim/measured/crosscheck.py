"""A device's estimates held against measurements: error, rank, and who wins.

Times are easy to rank; what decides is the speed-up over dense. So both are reported: the error of
each kernel's time, and of the speed-up over the dense kernel at the same size and dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.mask import Mask
from hwsim.measured.record import Measurement
from hwsim.workload import gemm

SIZE_CLASSES = ((0.0, "< 20 µs"), (20e-6, "20–200 µs"), (200e-6, "0.2–2 ms"), (2e-3, "> 2 ms"))


@dataclass(frozen=True)
class Pair:
    """One record and the price of its kernel; `estimated_s` is without packing unless timed so."""

    record: Measurement
    estimated_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Estimate over measurement, minus one."""
        return self.estimated_s / self.record.median_s - 1.0

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the estimate's interval."""
        return self.low_s <= self.record.median_s <= self.high_s


@dataclass(frozen=True)
class CrossCheck:
    """What came of it.

    Attributes:
        device: its name.
        pairs: records with their estimates.
        skipped: why records were left out, with how many.
    """

    device: str
    pairs: tuple[Pair, ...]
    skipped: dict[str, int]

    def time_mape(self, kernel: str | None = None) -> float:
        """Mean |estimate/measurement − 1|, of one kernel or of all; NaN where there is none."""
        errors = [abs(p.error) for p in self.pairs if kernel in (None, p.record.kernel)]
        return float(np.mean(errors)) if errors else float("nan")

    def coverage(self) -> float:
        """Share of measurements inside the estimates' interval."""
        return float(np.mean([p.inside for p in self.pairs]))

    def speed_ups(self, kernel: str = "2:4") -> np.ndarray:
        """(cases, 2): measured and estimated speed-up of `kernel` over dense, same size."""
        found = [
            (group["dense"].record.median_s / group[kernel].record.median_s,
             group["dense"].estimated_s / group[kernel].estimated_s)
            for group in self._groups()
            if "dense" in group and kernel in group
        ]  # fmt: skip
        return np.array(found).reshape(-1, 2)

    def speed_up_mape(self, kernel: str = "2:4") -> float:
        """Mean |estimate/measurement − 1| of the speed-up over dense; NaN where there is none."""
        both = self.speed_ups(kernel)
        return float(np.abs(both[:, 1] / both[:, 0] - 1.0).mean()) if len(both) else float("nan")

    def speed_up_tau(self, kernel: str = "2:4") -> float:
        """Kendall's τ between measured and estimated speed-ups; NaN below two cases."""
        from scipy.stats import kendalltau

        both = self.speed_ups(kernel)
        return float(kendalltau(both[:, 0], both[:, 1])[0]) if len(both) > 1 else float("nan")

    def fastest_hit_rate(self, slack: float = 0.0) -> float:
        """How often the kernel estimated fastest is measured fastest, or within `slack` of it.

        Where there is a choice; NaN where there is none.
        """
        hits = []
        for group in (group for group in self._groups() if len(group) > 1):
            chosen = min(group.values(), key=lambda p: p.estimated_s).record
            best_s = min(p.record.median_s for p in group.values())
            hits.append(chosen.median_s <= best_s * (1.0 + slack))
        return float(np.mean(hits)) if hits else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """One row per dtype and kernel, for a table."""
        kinds = sorted({(p.record.dtype, p.record.kernel) for p in self.pairs})
        return [self._row(dtype, kernel) for dtype, kernel in kinds]

    def size_rows(self) -> list[dict[str, Any]]:
        """One row per kernel and class of measured time: where the model fails."""
        rows = []
        for kernel in sorted({p.record.kernel for p in self.pairs}):
            mine = [p for p in self.pairs if p.record.kernel == kernel]
            ends = [start for start, _ in SIZE_CLASSES[1:]] + [float("inf")]
            for (start, label), end in zip(SIZE_CLASSES, ends, strict=True):
                some = [p.error for p in mine if start <= p.record.median_s < end]
                if some:
                    rows.append({
                        "kernel": kernel, "measured": label, "records": len(some),
                        "time_mape": float(np.abs(some).mean()), "bias": float(np.mean(some)),
                    })  # fmt: skip
        return rows

    def worst(self, count: int = 10) -> list[Pair]:
        """The pairs with the largest ratio between estimate and measurement."""
        return sorted(self.pairs, key=lambda p: -abs(np.log1p(p.error)))[:count]

    def _row(self, dtype: str, kernel: str) -> dict[str, Any]:
        of_dtype = CrossCheck(
            self.device, tuple(p for p in self.pairs if p.record.dtype == dtype), {}
        )
        mine = tuple(p for p in of_dtype.pairs if p.record.kernel == kernel)
        row = {
            "dtype": dtype,
            "kernel": kernel,
            "records": len(mine),
            "time_mape": of_dtype.time_mape(kernel),
            "inside_interval": CrossCheck(self.device, mine, {}).coverage(),
        }
        if kernel != "dense":
            row |= {
                "speed_up_mape": of_dtype.speed_up_mape(kernel),
                "speed_up_tau": of_dtype.speed_up_tau(kernel),
                "fastest_hit_rate": of_dtype.fastest_hit_rate(),
            }
        return row

    def _groups(self) -> Iterable[dict[str, Pair]]:
        """Kernel → pair, of records that differ in nothing but the kernel."""
        groups: dict[tuple, dict[str, Pair]] = {}
        for pair in self.pairs:
            r = pair.record
            at = (r.machine, r.phase, r.shape, r.dtype, r.cache, r.threads, r.graph)
            # A dense record has no mask; it is the baseline of every mask at its size.
            for density in {r.density} if r.kernel != "dense" else self._densities(at):
                groups.setdefault((*at, density), {})[r.kernel] = pair
        return groups.values()

    def _densities(self, at: tuple) -> set[float]:
        found = {
            p.record.density
            for p in self.pairs
            if p.record.kernel != "dense"
            and (p.record.machine, p.record.phase, p.record.shape, p.record.dtype,
                 p.record.cache, p.record.threads, p.record.graph) == at
        }  # fmt: skip
        return found or {1.0}


def crosscheck(device: Device, records: Sequence[Measurement]) -> CrossCheck:
    """Prices every record's kernel on `device`.

    A device that has `price_record(record)` is asked through it. Others are asked for the op of
    the record, with a seeded mask of the record's density (2:4 where the kernel is), and the
    estimate of the record's kernel is taken.

    Raises:
        InputError: not one record can be priced; the reasons are named.
    """
    pairs, skipped = [], {}
    for record in records:
        try:
            estimate = _priced(device, record)
        except InputError as error:
            skipped[str(error)] = skipped.get(str(error), 0) + 1
            continue
        pairs.append(Pair(record, estimate.seconds, estimate.low_s, estimate.high_s))
    if not pairs:
        reasons = "; ".join(f"{n}: {why}" for why, n in list(skipped.items())[:3]) or "no records"
        raise InputError(
            f"crosscheck: device {device.name!r} prices none of the records ({reasons})"
        )
    return CrossCheck(device.name, tuple(pairs), skipped)


def _priced(device: Device, record: Measurement) -> Estimate:
    price_record = getattr(device, "price_record", None)
    if price_record is not None:
        return price_record(record)
    mask = _mask_of(record) if record.density < 1.0 or record.mask_digest else None
    op = gemm(record.m, record.n, record.k, mask, record.phase, record.dtype)
    for estimate in device.kernels(op):
        if estimate.kernel == record.kernel:
            if not estimate.legal:
                raise InputError(f"{record.kernel}: {estimate.reason}")
            return estimate
    known = ", ".join(e.kernel for e in device.kernels(op))
    raise InputError(f"kernel {record.kernel!r} is not modelled (valid: {known})")


def _mask_of(record: Measurement) -> Mask:
    """A mask of the record's density, the same count in each row, seeded by its size."""
    rng = np.random.default_rng((record.m, record.n, record.k))
    if record.kernel == "2:4":
        tile = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
        repeats = (-(-record.n // 4), -(-record.k // 4))
        return Mask(np.tile(tile, repeats)[: record.n, : record.k], copy=False)
    scores = rng.random((record.n, record.k), dtype=np.float32)
    fan_in = max(1, round(record.density * record.k))
    array = np.zeros((record.n, record.k), bool)
    chosen = np.argpartition(scores, fan_in - 1, axis=1)[:, :fan_in]
    np.put_along_axis(array, chosen, True, axis=1)
    return Mask(array, copy=False)
