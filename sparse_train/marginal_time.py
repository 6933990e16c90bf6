"""Densities from the simulator: one more weight costs the same time in every layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim import Device, Mask, gemm
from hwsim.checks import check_density, check_number
from sparse_train.naming import Shapes, mask_shape

PRODUCTS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class EqualMarginalTime:
    """A distribution that spends the density where the device charges least for it.

    Each layer's time of a training step is priced under random masks of rising density, and
    replaced by its lower convex hull; segments are then bought in the order of seconds per
    weight until the density is reached. Where two layers are both between their bounds, one more
    weight costs the same in either. Ties are shared in proportion to size.

    Args:
        device: a hwsim device.
        rows: rows of the activations of every layer (batch × tokens), or {layer: rows}.
        least: density that every layer has in any case.
        points: densities priced, from `least` to 1.
        seed: of the random masks.

    Source: this project.
    """

    device: Device
    rows: int | Mapping[str, int] = 1024
    least: float = 0.01
    points: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        check_density("least", self.least)
        check_number("points", self.points, least=2)

    def __call__(self, shapes: Shapes, density: float) -> dict[str, float]:
        check_density("density", density)
        if density <= self.least:
            return dict.fromkeys(shapes, density)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        segments = [s for name in shapes for s in self._segments(name, shapes[name])]
        segments.sort(key=lambda s: s[0])
        found = dict.fromkeys(shapes, self.least)
        left = (density - self.least) * sum(sizes.values())
        start = 0
        while start < len(segments) and left > 0:
            end = start
            while end < len(segments) and segments[end][0] == segments[start][0]:
                end += 1
            offered = sum(step * sizes[name] for _, name, step in segments[start:end])
            share = min(1.0, left / offered) if offered > 0 else 1.0
            for _, name, step in segments[start:end]:
                found[name] = min(1.0, found[name] + share * step)
            left -= share * offered
            start = end
        return found

    def _segments(self, name: str, shape: tuple[int, ...]) -> list[tuple[float, str, float]]:
        """(seconds per weight, layer, density gained) along the lower convex hull.

        Prices have seven digits, so that equal ones are equal.
        """
        flat = mask_shape(shape)
        densities = np.linspace(self.least, 1.0, self.points)
        scores = np.random.default_rng(self.seed).random(flat)
        # Masks nested in each other, so that only their number differs.
        times = [self._seconds(name, scores <= d) for d in densities]
        hull = _lower_hull(densities, np.array(times))
        size = math.prod(flat)
        segments = []
        for a, b in itertools.pairwise(hull):
            gained = float(densities[b] - densities[a])
            price = max((times[b] - times[a]) / (gained * size), 0.0)
            segments.append((float(f"{price:.6e}"), name, gained))
        return segments

    def _seconds(self, name: str, array: np.ndarray) -> float:
        rows = self.rows[name] if isinstance(self.rows, Mapping) else self.rows
        mask = Mask(array)
        n_out, n_in = mask.shape
        return sum(
            self.device.estimate(gemm(rows, n_out, n_in, mask, phase, name=name)).seconds
            for phase in PRODUCTS
        )


def _lower_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the points on the lower convex hull, from left to right."""
    hull: list[int] = []
    for i in range(x.size):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return hull
