"""The layers that CPU kernels are timed on, to fit a model and to hold it against.

A case is drawn from its seed alone, so that a record of it (`hwsim.measured.record`) leads back to
the very mask that was timed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.errors import InputError, unknown
from hwsim.mask import Mask

PATTERNS = ("random", "band", "skewed")
_BAND = 3.0  # how many times as wide a band is as its weights would be side by side
_SKEW = 1.0  # standard deviation of the logarithm of how popular an input or output is


@dataclass(frozen=True)
class CpuCase:
    """A mask (n_out, n_in), and the batches to time under it.

    Attributes:
        density: expected share of active weights.
        pattern: "random": all places alike. "band": the inputs of an output lie side by side, in
            the same order as outputs. "skewed": inputs and outputs differ in their weights.
        seed: of the mask.
    """

    n_out: int
    n_in: int
    density: float
    batches: tuple[int, ...]
    pattern: str = "random"
    seed: int = 0


# Each shape with two densities, each density with batches of its own: terms that grow together
# in a grid come apart. Batches that are no multiples of four show what the rest costs.
CASES = (
    CpuCase(768, 768, 0.1, (1, 8, 20, 64, 256)),
    CpuCase(3072, 768, 0.03, (1, 4, 18, 128), "skewed"),
    CpuCase(768, 3072, 0.2, (1, 7, 30, 64)),
    CpuCase(512, 1024, 0.05, (1, 12, 33, 512), "band"),
    CpuCase(1024, 512, 0.3, (1, 3, 40, 127)),
    CpuCase(256, 256, 0.1, (1, 8, 66, 384)),
    CpuCase(2048, 384, 0.1, (1, 5, 64, 255), "band"),
    CpuCase(384, 2048, 0.03, (1, 14, 100, 256)),
    CpuCase(1536, 1536, 0.15, (1, 2, 24, 97), "skewed"),
    CpuCase(768, 3072, 0.05, (1, 10, 35, 256), "band"),
    CpuCase(3072, 768, 0.15, (1, 5, 45, 256)),
    CpuCase(512, 1024, 0.2, (1, 16, 64, 193)),
    CpuCase(1024, 512, 0.05, (1, 22, 90, 384), "skewed"),
    CpuCase(256, 256, 0.3, (1, 2, 50, 131), "skewed"),
    CpuCase(768, 768, 0.03, (1, 6, 48, 510), "skewed"),
    CpuCase(1536, 1536, 0.05, (1, 6, 28, 128)),
)


def drawn_cases(count: int, seed: int) -> tuple[CpuCase, ...]:
    """Layers drawn from a seed: half of them random masks, the others of the other patterns.

    Sides are 256 … 3072, densities 0.02 … 0.3, batches 1 and three of 2 … 512; all log-uniform.
    Sides are multiples of 16, and a weight has at most 3072·768 elements.
    """
    rng = np.random.default_rng(seed)

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    found: list[CpuCase] = []
    while len(found) < count:
        n, k = (16 * round(between(256, 3072) / 16) for _ in range(2))
        batches = sorted({1, *(round(between(2, 512)) for _ in range(3))})
        density = round(between(0.02, 0.3), 3)
        pattern = str(rng.choice(PATTERNS, p=(0.5, 0.25, 0.25)))
        number = int(rng.integers(1 << 31))
        if n * k <= 3072 * 768:
            found.append(CpuCase(n, k, density, tuple(batches), pattern, number))
    return tuple(found)


# What a calibration is held against. The seed was set before anything had been timed with it; no
# term of the model was chosen by what it showed. Seeds 20261121 and 20261122 were used before, for
# the kernels of that time: what the first showed led to the term `far_line`.
UNSEEN = drawn_cases(16, seed=20261123)


def drawn_mask(n_out: int, n_in: int, density: float, pattern: str, seed: int) -> Mask:
    """The mask of a `CpuCase`.

    Raises:
        InputError: an unknown pattern.
    """
    if pattern not in PATTERNS:
        raise InputError(unknown("pattern", pattern, PATTERNS))
    rng = np.random.default_rng((seed, n_out, n_in))
    if pattern == "skewed":
        outputs, inputs = (np.exp(_SKEW * rng.standard_normal(size)) for size in (n_out, n_in))
        wanted = np.outer(outputs, inputs)
        # As the shares are cut at one, a few rounds find the factor that keeps the density.
        for _ in range(20):
            wanted *= density / np.minimum(wanted, 1.0).mean()
        return Mask(rng.random((n_out, n_in)) < wanted)
    chances = rng.random((n_out, n_in))
    if pattern == "random":
        return Mask(chances < density)
    width = min(float(n_in), _BAND * density * n_in)
    middles = (np.arange(n_out)[:, None] + 0.5) / n_out * n_in
    starts = np.clip(middles - width / 2, 0.0, n_in - width)
    columns = np.arange(n_in)
    inside = (columns >= starts) & (columns < starts + width)
    return Mask(inside & (chances < density * n_in / width))
