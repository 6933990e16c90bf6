"""How a model's density is shared out among its layers.

A distribution takes {layer name: weight shape} and the density of all these weights together, and
gives {layer name: density}. Shapes are torch's: (out, in) or (out, in, kernel height, …).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from hwsim import load_device
from hwsim.checks import check_density
from hwsim.errors import InputError, unknown
from hwsim.registry import NameTable
from sparse_train.marginal_time import EqualMarginalTime
from sparse_train.naming import Shapes

Distribution = Callable[[Shapes, float], dict[str, float]]


def uniform(shapes: Shapes, density: float) -> dict[str, float]:
    """Every layer at the same density.

    >>> uniform({"a": (4, 4), "b": (2, 8)}, 0.25)
    {'a': 0.25, 'b': 0.25}
    """
    _check(shapes, density)
    return dict.fromkeys(shapes, density)


def er(shapes: Shapes, density: float, *, power: float = 1.0) -> dict[str, float]:
    """Erdős–Rényi: density in proportion to (n_out + n_in) / (n_out · n_in), channels only.

    Source: Mocanu et al. 2018, section 2; Evci et al. 2020, section 3.
    """
    return _erdos_renyi(shapes, density, power, kernel=False)


def erk(shapes: Shapes, density: float, *, power: float = 1.0) -> dict[str, float]:
    """Erdős–Rényi-Kernel: density in proportion to Σ dims / Π dims, the kernel's included.

    A layer whose share would exceed 1 becomes dense, with all others of equal share, and what is
    left goes to the rest. The weighted mean is `density`, to less than one weight a layer.

    Args:
        shapes: layer name → weight shape.
        density: of all layers together, 0 to 1.
        power: exponent of the raw share; 0 is uniform.

    Source: Evci et al. 2020, section 3.

    >>> densities = erk({"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}, 0.1)
    >>> [round(d, 4) for d in densities.values()]
    [0.0796, 0.2302, 1.0]
    """
    return _erdos_renyi(shapes, density, power, kernel=True)


def _erdos_renyi(shapes: Shapes, density: float, power: float, *, kernel: bool) -> dict[str, float]:
    _check(shapes, density)
    if density in (0.0, 1.0):
        return dict.fromkeys(shapes, density)
    # The sum below is taken over zeros, rounded down, as the authors do: ε depends on it.
    sparsity = 1.0 - density
    zeros = {name: math.floor(sparsity * math.prod(shape)) for name, shape in shapes.items()}
    raw = {
        name: (sum(dims) / math.prod(dims)) ** power
        for name, dims in ((n, s if kernel else s[:2]) for n, s in shapes.items())
    }
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        if not rest:
            return dict.fromkeys(shapes, 1.0)
        kept = sum(math.prod(shapes[n]) - zeros[n] for n in rest) - sum(zeros[n] for n in dense)
        scale = kept / sum(raw[n] * math.prod(shapes[n]) for n in rest)
        largest = max(raw[n] for n in rest)
        if largest * scale <= 1.0:
            return {n: 1.0 if n in dense else scale * raw[n] for n in shapes}
        dense |= {n for n in rest if raw[n] == largest}


EQUAL_TIME = "equal_marginal_time"
DISTRIBUTIONS = NameTable(
    "distribution",
    {"er": er, "erk": erk, "uniform": uniform, EQUAL_TIME: EqualMarginalTime},
    group="nettime.distributions",
)


def distribution(given: str | Distribution | Mapping[str, float]) -> Distribution:
    """A distribution by name, a callable of the user's, or fixed densities per layer.

    "equal_marginal_time:wafer" is priced on the device after the colon, by default "ideal".

    Raises:
        InputError: a name that is not known.
    """
    if isinstance(given, str):
        name, _, device = given.partition(":")
        if name == EQUAL_TIME:
            return EqualMarginalTime(load_device(device or "ideal"))
        return DISTRIBUTIONS.get(given)
    if isinstance(given, Mapping):
        return Listed(dict(given))
    if not callable(given):
        raise InputError(
            f"distribution: value is {given!r}; allowed is a name, a mapping layer → density, "
            "or a function (shapes, density) → mapping"
        )
    return given


def check_distribution(given: str) -> None:
    """An InputError unless `distribution` can make something of a name. Nothing is imported."""
    name, _, device = given.partition(":") if isinstance(given, str) else ("", "", "")
    if name == EQUAL_TIME:
        load_device(device or "ideal")
    else:
        DISTRIBUTIONS.check(given)


class Listed:
    """Densities that the user gave, layer by layer; the overall density is not used."""

    def __init__(self, densities: dict[str, float]) -> None:
        self.densities = densities

    def __call__(self, shapes: Shapes, density: float) -> dict[str, float]:
        for name in self.densities:
            if name not in shapes:
                raise InputError(unknown("layer in distribution", name, sorted(shapes)))
        missing = sorted(set(shapes) - set(self.densities))
        if missing:
            raise InputError(f"distribution: layer {missing[0]!r} has no density; give one for it")
        for name, value in self.densities.items():
            check_density(f"density of {name!r}", value)
        return dict(self.densities)


class Bounded:
    """A distribution whose densities stay within bounds per layer; the rest is scaled to match.

    Args:
        inner: the distribution, by name or as a function.
        bounds: layer name, or pattern of names, → (least, most) density.

    Raises:
        InputError: a pattern that matches no layer, impossible bounds, or a density that they do
            not allow.

    >>> found = Bounded("uniform", {"a": (0.5, 1.0)})({"a": (4, 4), "b": (4, 4)}, 0.3)
    >>> {name: round(density, 6) for name, density in found.items()}
    {'a': 0.5, 'b': 0.1}
    """

    def __init__(
        self, inner: str | Distribution, bounds: Mapping[str, tuple[float, float]]
    ) -> None:
        self.inner = distribution(inner)
        self.bounds = dict(bounds)
        for name, (least, most) in self.bounds.items():
            check_density(f"least density of {name!r}", least)
            check_density(f"most density of {name!r}", most)
            if least > most:
                raise InputError(
                    f"bounds of {name!r}: least is {least}; allowed is at most {most}, the most"
                )

    def __call__(self, shapes: Shapes, density: float) -> dict[str, float]:
        wanted = self.inner(shapes, density)
        limits = self._limits(shapes)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        total = density * sum(sizes.values())
        if not (
            sum(limits[n][0] * sizes[n] for n in sizes) - 1e-9
            <= total
            <= sum(limits[n][1] * sizes[n] for n in sizes) + 1e-9
        ):
            raise InputError(f"density: value is {density}; the layers' bounds do not allow it")

        def at(scale: float) -> dict[str, float]:
            return {n: min(max(scale * wanted[n], limits[n][0]), limits[n][1]) for n in sizes}

        # The total rises with the scale: halve the interval until it is met.
        low, high = 0.0, 1.0
        while sum(d * sizes[n] for n, d in at(high).items()) < total - 1e-9 and high < 1e12:
            high *= 2
        for _ in range(200):
            middle = (low + high) / 2
            reached = sum(d * sizes[n] for n, d in at(middle).items())
            low, high = (middle, high) if reached < total else (low, middle)
        return at(high)

    def _limits(self, shapes: Shapes) -> dict[str, tuple[float, float]]:
        limits = dict.fromkeys(shapes, (0.0, 1.0))
        for pattern, pair in self.bounds.items():
            found = [name for name in shapes if fnmatchcase(name, pattern)]
            if not found:
                raise InputError(unknown("layer in bounds", pattern, sorted(shapes)))
            limits.update(dict.fromkeys(found, pair))
        return limits


def budgets(
    shapes: Shapes, densities: Mapping[str, float], total: int | None = None
) -> dict[str, int]:
    """Active weights per layer, as integers.

    The fractions that are left go one each to the layers with the largest (the first among
    equals). A layer with a density above 0 gets at least one weight.

    Args:
        shapes: layer name → weight shape.
        densities: layer name → density.
        total: sum of the counts; None is the rounded sum of density · size. A distribution may
            miss its density by less than a weight a layer; the total puts that right.

    >>> budgets({"a": (5, 5), "b": (5, 5), "c": (5, 5)}, {"a": 0.1, "b": 0.1, "c": 0.1})
    {'a': 3, 'b': 3, 'c': 2}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    # Rounded at 1e-9: 0.3 · 130 is 39, not 38.999….
    exact = {name: round(densities[name] * size, 9) for name, size in sizes.items()}
    least = {name: int(value > 0) for name, value in exact.items()}
    counts = {name: max(math.floor(value), least[name]) for name, value in exact.items()}
    if total is None:
        total = math.floor(sum(exact.values()) + 0.5)
    total = min(max(total, sum(least.values())), sum(sizes.values()))
    while (missing := total - sum(counts.values())) > 0:
        open_to = sorted(
            (n for n in sizes if counts[n] < sizes[n]), key=lambda n: counts[n] - exact[n]
        )
        for name in open_to[:missing]:
            counts[name] += 1
    while (over := sum(counts.values()) - total) > 0:
        open_to = sorted(
            (n for n in sizes if counts[n] > least[n]), key=lambda n: exact[n] - counts[n]
        )
        for name in open_to[:over]:
            counts[name] -= 1
    return counts


def _check(shapes: Shapes, density: float) -> None:
    check_density("density", density)
    if not shapes:
        raise InputError("shapes: no layer is given; allowed is at least one")
    for name, shape in shapes.items():
        if len(shape) < 2 or any(size < 1 for size in shape):
            raise InputError(
                f"shape of {name!r}: value is {tuple(shape)}; allowed is two or more sizes, "
                "each at least 1"
            )
