"""Growth per microsecond: grow where the most gradient is gained for the least time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim import Device, Mask, gemm, load_device
from hwsim.checks import check_number
from sparse_train.algorithms._base import Outcome, State, View
from sparse_train.algorithms._global import count_best, unstructured_only, within
from sparse_train.algorithms.rigl import RigL
from sparse_train.selection import top_k
from sparse_train.selection.arrays import brought, count, divided, size

PRODUCTS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class GrowthPerMicrosecond(RigL):
    """RigL whose grown weights compete across layers by |gradient| per estimated microsecond.

    Every layer drops as in RigL. What is then missing from the sum of all budgets goes to the
    candidates with the largest |gradient| / c, c the seconds that one more active weight of the
    layer costs on `device`: the three products of a training step are priced under the mask that
    is kept and under one with `probe` more of its best candidates. Where weights are free (the
    device runs the layer dense, or it is bound by something else), c is a thousandth of the
    dearest layer's.

    Args:
        device: a hwsim device, or its name or path.
        rows: rows of the activations of every layer (batch × tokens), or {layer: rows}.
        probe: share of a layer's free weights in the trial mask.

    Source: this project.
    """

    budget: ClassVar[str] = "total"
    on_device: ClassVar[bool] = True
    device: Device | str = "wafer"
    rows: int | Mapping[str, int] = 1024
    probe: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe", self.probe, above=0, most=1)
        if not isinstance(self.device, Device):
            object.__setattr__(self, "device", load_device(self.device))

    def update(self, view: View, state: State) -> Outcome:
        unstructured_only(view.pattern, "growth_per_microsecond")
        kept = {name: self._kept(view, name) for name in view.masks}
        total = sum(view.budgets.values()) - sum(count(mask) for mask in kept.values())
        growth = {name: self.grow_scores(view, name) for name in kept}
        costs = {name: self._cost(name, kept[name], growth[name]) for name in kept}
        # Relative costs and gradients, so that float32 ranks them without loss of range.
        dearest = max(costs.values()) or 1.0
        steepest = max(float(g.max()) for g in growth.values()) or 1.0
        worth = {
            name: divided(divided(g, steepest), max(costs[name] / dearest, 1e-3))
            for name, g in growth.items()
        }
        grown = count_best(worth, max(total, 0), {n: ~mask for n, mask in kept.items()})
        active = {name: count(mask) + grown[name] for name, mask in kept.items()}
        for name in kept:
            if active[name] == 0 and view.budgets[name] > 0:
                active[name] = 1  # No layer may run empty: one that has more than one pays for it.
                payer = max(active, key=lambda n: (active[n] > 1, grown[n], active[n]))
                active[payer] -= int(active[payer] > 1)
        masks = {}
        for name, mask in kept.items():
            mask = within(view, name, self.drop_scores(view, name), mask, active[name])
            masks[name] = view.pattern.fill(growth[name], mask, active[name])
        return Outcome(masks, state)

    def _cost(self, name: str, kept: np.ndarray, growth: np.ndarray) -> float:
        """Seconds of a training step per additional active weight; never negative."""
        free = size(kept) - count(kept)
        more = math.ceil(self.probe * free)
        if more == 0:
            return math.inf if free else 0.0
        trial = kept | top_k(growth, more, ~kept)
        return max(self._seconds(name, trial) - self._seconds(name, kept), 0.0) / more

    def _seconds(self, name: str, mask: np.ndarray) -> float:
        assert isinstance(self.device, Device)
        rows = self.rows[name] if isinstance(self.rows, Mapping) else self.rows
        held = Mask(brought(mask))  # prices are the host's: flags are copied, no floats
        n_out, n_in = held.shape
        return sum(
            self.device.estimate(gemm(rows, n_out, n_in, held, phase, name=name)).seconds
            for phase in PRODUCTS
        )


ALGORITHM = GrowthPerMicrosecond
