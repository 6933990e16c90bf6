"""What a step costs on a device as a function of the layers' densities: a table, made once.

An agent's episode asks for prices thousands of times. A step's price is a sum over its ops, so the
time of each layer is tabulated over its density once per network and device, under random masks,
and looked up from then on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hwsim import Device, InputError, Mask, Op, Workload, load_device
from hwsim.workload import PRODUCTS
from rl.runs.problems import Problem, first_batch
from sparse_train.masking.layers import select_layers
from sparse_train.naming import layer_name
from sparse_train.workload import workload

LEAST_DENSITY = 1 / 128
# Even in log density. A mask with next to all weights still has a mask's costs, the dense layer
# has not: the last interval holds that jump.
GRID = np.append(np.exp(np.linspace(np.log(LEAST_DENSITY), np.log(0.999), 25)), 1.0)


_LOG_GRID = torch.from_numpy(np.log(GRID))


def lookup(table: Tensor, density: Tensor) -> Tensor:
    """Values of `table` (…, grid) at `density` (…), float64; linear in log density between points.

    Leading axes that the table lacks are broadcast.
    """
    log = density.double().clamp(LEAST_DENSITY, 1.0).log()
    right = torch.searchsorted(_LOG_GRID, log.contiguous()).clamp(1, len(_LOG_GRID) - 1)
    left = right - 1
    share = (log - _LOG_GRID[left]) / (_LOG_GRID[right] - _LOG_GRID[left])
    whole = table.expand(*density.shape, len(_LOG_GRID))
    a = whole.gather(-1, left[..., None])[..., 0]
    b = whole.gather(-1, right[..., None])[..., 0]
    return a + (b - a) * share


@dataclass(frozen=True)
class Prices:
    """Seconds and FLOPs of one network's training step on one device.

    Attributes:
        layer_s: (layers, grid) seconds of everything that belongs to a layer, by density.
        update_s: (layers, grid) extra seconds of a step that updates the layer's mask.
        fixed_s: seconds of what no mask reduces.
        layer_flops: (layers,) of a dense layer; in proportion to the density. 0 of a table that is
            looked up: no mask changes what it costs.
        fixed_flops: of the rest.
    """

    layer_s: Tensor
    update_s: Tensor
    fixed_s: float
    layer_flops: Tensor
    fixed_flops: float

    @property
    def dense_s(self) -> float:
        """Seconds of a dense step."""
        return self.fixed_s + float(self.layer_s[:, -1].sum())

    @property
    def dense_flops(self) -> float:
        """Of a dense step."""
        return self.fixed_flops + float(self.layer_flops.sum())

    def seconds(self, density: Tensor) -> Tensor:
        """(…, layers) → the same, float64."""
        return lookup(self.layer_s, density)

    def update_seconds(self, density: Tensor) -> Tensor:
        """Extra seconds of a mask update, (…, layers)."""
        return lookup(self.update_s, density)

    @property
    def slope(self) -> float:
        """dt/dd at low density in units of the dense layer's time, the mean over layers."""
        low, high = (self.seconds(torch.full((len(self.layer_s),), d)) for d in (0.05, 0.15))
        return float(((high - low) / (0.1 * self.layer_s[:, -1])).mean())


@functools.cache
def load(device: str) -> Device:
    """A device, loaded once."""
    return load_device(device)


@functools.cache
def prices(problem: Problem, device: str, *, dense_gradient: bool = True) -> Prices:
    """The table of a problem's network on a device.

    Args:
        dense_gradient: whether a mask update needs the gradient of inactive weights too.
    """
    model = problem.build()
    s = problem.setting
    ranks = {layer_name(name): p.ndim for name, p in model.named_parameters()}
    step = scaled(workload(model, first_batch(problem)), ranks, s.width_scale, s.rows_scale)
    names = tuple(layer.name for layer in select_layers(model, problem.layers, None).layers)
    return tabulate(step, names, load(device), dense_gradient=dense_gradient)


def scaled(step: Workload, ranks: Mapping[str, int], width: int, rows: int) -> Workload:
    """The step of a network whose every layer is `width` times as wide, on `rows` times the rows.

    Attention gets more heads of the same size. `ranks` tells matrices from vectors among the
    parameters that the optimizer updates.
    """
    if min(width, rows) < 1:
        raise InputError(f"width, rows: values are {width}, {rows}; allowed is at least 1")
    return Workload(tuple(_scaled(op, ranks, width, rows) for op in step.ops), step.name)


def _scaled(op: Op, ranks: Mapping[str, int], width: int, rows: int) -> Op:
    shape = op.weight_shape and (op.weight_shape[0] * width, op.weight_shape[1] * width)
    change: dict = {
        "weight_shape": shape,
        "dense_flops": op.dense_flops * rows * width,
        "activation_bytes": op.activation_bytes * rows * width,
        "weight_bytes": op.weight_bytes * width * width,
    }
    if op.phase == "update":
        times = width * width if shape or ranks.get(op.name, 1) > 1 else width
        change["dense_flops"] = op.dense_flops * times
        change["activation_bytes"] = op.activation_bytes * times
    elif op.kind in PRODUCTS and op.weight_bytes:
        change["dense_flops"] = op.dense_flops * rows * width * width
        change |= {"m": op.m * rows, "n": op.n * width, "k": op.k * width}
    elif op.kind in PRODUCTS:
        change["count"] = op.count * rows * width
    return dataclasses.replace(op, **change)


def tabulate(
    step: Workload, names: tuple[str, ...], device: Device, *, dense_gradient: bool, seed: int = 0
) -> Prices:
    """Prices of a step whose layers `names` can be masked, under random masks of each density.

    The masks of one shape are nested in each other and shared by the layers of that shape.
    """
    layers = step.layers
    rest = Workload(tuple(op for op in step.ops if op.name not in names))
    fixed_s = device.estimate(rest).seconds
    total = {name: 0.0 for name in names if name in layers}
    for op in step.ops:
        if op.name in total:
            total[op.name] += op.dense_flops
    layer_s, update_s = np.zeros((len(names), len(GRID))), np.zeros((len(names), len(GRID)))
    known: dict[tuple, tuple[float, float]] = {}
    for i, name in enumerate(names):
        own = Workload(tuple(op for op in step.ops if op.name == name))
        if name not in layers:
            layer_s[i] = device.estimate(own).seconds
            continue
        key = tuple(dataclasses.replace(op, name="").signature for op in own.ops)
        scores = np.random.default_rng((seed, *layers[name])).random(layers[name])
        for j, density in enumerate(GRID):
            if (key, j) not in known:
                masks = {name: Mask(_lowest(scores, density))} if density < 1 else {}
                plain = own.with_masks(masks)
                seconds = device.estimate(plain).seconds
                # A dense layer has no mask to update; what it would pay on its first pruning is
                # the price of a nearly dense one.
                masked = plain if masks else own.with_masks({name: Mask(scores >= 0)})
                update = masked.growth_step(dense_gradient=dense_gradient)
                extra = device.estimate(update).seconds - device.estimate(masked).seconds
                known[key, j] = seconds, max(0.0, extra)
            layer_s[i, j], update_s[i, j] = known[key, j]
    flops = torch.tensor([total.get(name, 0.0) for name in names], dtype=torch.float64)
    return Prices(
        torch.from_numpy(layer_s), torch.from_numpy(update_s), fixed_s, flops,
        float(step.dense_flops - flops.sum()),
    )  # fmt: skip


def _lowest(scores: np.ndarray, density: float) -> np.ndarray:
    """True at the share `density` of lowest scores, at least at one."""
    k = max(1, round(density * scores.size))
    return scores <= np.partition(scores.ravel(), k - 1)[k - 1]


class PricedSlots:
    """The tables of the slots of a batch, one after the other, so that all are looked up at once.

    Attributes:
        fixed_s, step_s, fixed_flops, step_flops: (batch,) of the rest of a step, and of a whole
            dense step of the slot's own network.
        slope: (batch,) see `Prices.slope`.
    """

    def __init__(self, batch: int, width: int) -> None:
        # One tensor for both, so that a round looks them up in one call.
        self._tables = torch.zeros(2, batch, width, len(GRID), dtype=torch.float64)
        self.layer_s, self.update_s = self._tables
        self.layer_flops = torch.zeros(batch, width, dtype=torch.float64)
        self.fixed_s, self.step_s, self.fixed_flops, self.step_flops, self.slope = (
            torch.ones(batch, dtype=torch.float64) for _ in range(5)
        )

    def set(self, place: int, table: Prices) -> None:
        """Writes a network's prices into a slot."""
        n = len(table.layer_flops)
        for own, new in (
            (self.layer_s, table.layer_s),
            (self.update_s, table.update_s),
            (self.layer_flops, table.layer_flops),
        ):
            own[place] = 0.0
            own[place, :n] = new
        self.fixed_s[place], self.step_s[place] = table.fixed_s, table.dense_s
        self.fixed_flops[place], self.step_flops[place] = table.fixed_flops, table.dense_flops
        self.slope[place] = table.slope

    def layer_seconds(self, density: Tensor) -> Tensor:
        """(…, batch, width) → the same."""
        return lookup(self.layer_s, density)

    def update_seconds(self, density: Tensor) -> Tensor:
        """(…, batch, width) → the same: of one mask update of each layer, packing included."""
        return lookup(self.update_s, density)

    def round(
        self, places: Tensor, density: Tensor, steps: int, updated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Seconds and FLOPs of a round of slots `places` (n,), both (n,).

        Args:
            density: (n, width).
            steps: of the round; the first also updates masks.
            updated: (n, layers) in which layers.
        """
        layer_s, update_s = lookup(self._tables[:, places], density.expand(2, *density.shape))
        step = self.fixed_s[places] + layer_s.sum(1)
        extra = update_s[:, : updated.shape[1]] * updated
        flops = self.fixed_flops[places] + (self.layer_flops[places] * density).sum(1)
        return steps * step + extra.sum(1), steps * flops
