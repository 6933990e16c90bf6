"""A tensor-core product on a GPU, dense or 2:4: how long it takes, from physics and a fit.

Seconds = launch + max(arithmetic, L2, DRAM) of the best tile and split-K, slowed by the power
limit. The arithmetic comes in waves of tiles over the SMs; the DRAM part is what does not fit L2
plus the strips that a tile order reads again. Sixteen parameters say how good a library is at
each part; eleven more say which tiles it likes. They are fitted apart for dense and 2:4 kernels,
since libraries choose those differently, and averaged over a few fits. A smooth correction in
log m, log n, log k takes what is left.

Source: Williams et al. 2009 (roofline); NVIDIA, "Matrix Multiplication Background User's Guide"
(tile and wave quantisation, split-K). The parameters' typical values are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from hwsim.errors import InputError

DENSE, SPARSE = "dense", "2:4"


class Parameter(NamedTuple):
    """One parameter of the product: typical values and how far cards stray, in log units."""

    name: str
    meaning: str
    dense: float
    sparse: float
    scale: float
    # How strongly kinds and dtypes of one card are held together; 1 is as loose as cards are.
    kind_stiffness: float = 1.0
    dtype_stiffness: float = 1.5


PARAMETERS = (
    Parameter("launch_s", "from launch to the first instruction", 4.7e-6, 4.7e-6, 0.25, 3.0, 4.0),
    Parameter("fill", "cost of small tiles: rate ∝ tm·tn/(tm·tn + 8·fill·(tm+tn))", 0.2, 0.2, 0.7),
    # 2:4: published speed-ups of 1.7 and 1.5 over dense on an A100, squares of 4096 and 8192.
    Parameter("efficiency", "of the data sheet's peak, by a large tile", 0.8, 0.66, 0.3),
    Parameter("tile_s", "start and end of a tile", 0.3e-6, 0.8e-6, 0.7),
    Parameter("dram_share", "of the data sheet's bandwidth", 0.85, 0.85, 0.2, 3.0, 4.0),
    Parameter("l2_rate", "bytes/s from L2 to one SM", 64e9, 64e9, 0.5),
    Parameter("l2_share", "of L2 that holds operands", 0.7, 0.7, 0.3, 3.0, 4.0),
    Parameter("reduce_s", "second pass of split-K", 8e-6, 8e-6, 0.7),
    Parameter("overlap", "p-norm of arithmetic, L2 and DRAM is 1 + this", 3.0, 2.0, 0.5),
    Parameter("step_s", "least time of 64 inputs of 16 bit in a tile", 0.1e-6, 0.15e-6, 0.5),
    Parameter("raster", "tiles a strip is high", 3.0, 2.0, 1.0, 1.0, 2.0),
    Parameter("throttle", "rate lost at the power limit", 0.1, 0.1, 0.5),
    Parameter("throttle_s", "duration at which the limit bites", 700e-6, 700e-6, 0.5, 1.0, 4.0),
    Parameter("choice", "spread of the library's choice of tile", 0.03, 0.04, 0.3),
    Parameter("sharpness", "of the step where L2 overflows", 4.0, 4.0, 0.3, 3.0, 4.0),
    Parameter("quantised", "share of a partial wave that is paid in full", 0.8, 0.8, 1.0),
)
TILES = np.array(
    [(256, 128), (128, 256), (128, 128), (64, 128), (128, 64), (64, 64), (64, 256), (256, 64),
     (32, 128), (64, 32), (256, 256)], float,
)  # fmt: skip
# What a library takes that was not asked to search: which of TILES, without split-K, and whether
# a partial wave is paid in full. Each that is named here is one of its kernels.
_CHOSEN = {"largest": (slice(0, 2), True), "square": (slice(2, 3), False),
           "whole": (slice(2, 3), True)}  # fmt: skip
_QUANTISED = [p.name for p in PARAMETERS].index("quantised")
SPLITS = np.array([1, 2, 3, 4, 6, 8, 12, 16], float)
MEMBER = len(PARAMETERS) + len(TILES)

FAMILIES = {
    "bfloat16": "half", "float16": "half", "float8": "float8", "int8": "int8",
    "tfloat32": "half", "float32": "single", "float64": "single",
}  # fmt: skip
# A product on CUDA cores: PARAMETERS, then the tiles' offsets. Fitted to 1,312 float32 products and
# batches of products that take over 0.1 ms, on three cards (V100 PCIe, A100 PCIe 40 and 80 GB,
# cuBLAS in PyTorch 2.1); in units of the card, so it is every card's. What a launch and the second
# pass of split-K take is assumed, as of tensor cores: the records hold 37 and 34 µs, the host's.
# Source: NeuSight's artifact (ASPLOS 2025).
SINGLE = (
    4.7e-06, 0.021011, 0.90086, 1.7001e-07, 0.57256, 13368000000.0, 0.4547, 8e-06, 2.8674,
    1e-07, 1.8241, 0.060611, 0.0010858, 0.008363, 3.8663, 0.75142, 0.0022946, 0.0001865, -0.084123,
    0.044415, 0.017114, 0.023664, -0.037777, 0.034145, 0.016232, 0.30213, 0.0022783,
)  # fmt: skip
# 10 % and 90 % quantiles of ln(measured / estimated) of products it had not seen.
SINGLE_SPREAD = (-0.10, 0.15)
# Of a card that is priced by its data sheet alone: 10 % and 90 % quantiles of what
# ln(measured / estimated) would be on a fifth card, by Student's t of 3 degrees of freedom, from
# four cards priced by the typical values. Cards' means scatter by 0.10 dense and 0.24 2:4, products
# of one card by 0.30 and 0.20.
UNFITTED_SPREAD = {DENSE: (-0.52, 0.52), SPARSE: (-0.66, 0.42)}

_WAVES = 48


@dataclass(frozen=True)
class ProductCard:
    """The data-sheet numbers that a product's time depends on."""

    sms: int
    l2_bytes: float
    dram_bytes_per_s: float


@dataclass(frozen=True, eq=False)
class ProductFit:
    """How one kind of kernel behaves on one family of operands.

    Attributes:
        members: (members, MEMBER): parameters in PARAMETERS' order and units, then one log-time
            offset per tile of TILES. Log times are averaged over members.
        correction: coefficients of `features`, (features,); None for none.
        spread: ln(measured / estimated) at the 10 % and 90 % quantiles, held out.
    """

    members: np.ndarray
    correction: np.ndarray | None = None
    spread: tuple[float, float] = (-0.4, 0.4)

    def log_seconds(
        self, kind: str, shapes: np.ndarray, card: ProductCard, peak: float, dtype: str,
        *, tiles: str = "searched",
    ) -> np.ndarray:  # fmt: skip
        """ln seconds of products, shapes (products, 3 or 5): see `hwsim/gpu/time.py`."""
        total = np.zeros(len(shapes))
        for member in self.members:
            total += log_seconds(member, kind, shapes, card, peak, dtype, tiles=tiles)
        total /= len(self.members)
        if self.correction is not None:
            total += np.clip(features(shapes[:, :3]) @ self.correction, -0.2, 0.2)
        return total


def log_seconds(
    member: np.ndarray, kind: str, shapes: np.ndarray, card: ProductCard, peak: float, dtype: str,
    *, tiles: str = "searched",
) -> np.ndarray:  # fmt: skip
    """ln seconds by one member's parameters; `peak` is the data sheet's dense FLOP/s.

    `tiles` is "searched", or what a library takes that was not asked to search: "largest" for 2:4
    products, "whole" for dense ones (128 × 128 in whole waves), "square" for batches on CUDA cores.
    """
    from hwsim.gpu.time import log_seconds as kernel

    element = ELEMENT_BYTES[dtype]
    machine = np.array([
        card.sms, card.l2_bytes, card.dram_bytes_per_s,
        peak * (2.0 if kind == SPARSE else 1.0),
        element, output_bytes(kind, dtype), packed_share(dtype) if kind == SPARSE else 1.0,
        8.0 if FAMILIES[dtype] == "single" else 64.0,
    ])  # fmt: skip
    out = np.empty(len(shapes))
    count = len(PARAMETERS)
    own, liked, chosen, splits = member[:count].copy(), member[count:], slice(None), SPLITS
    if tiles != "searched":
        (chosen, whole), splits = _CHOSEN[tiles], SPLITS[:1]
        if whole:  # What a search likes says nothing of what is taken without one.
            own[_QUANTISED], liked = 1.0, np.zeros(len(TILES))
    kernel(own, liked[chosen], shapes, TILES[chosen], splits, machine, out)
    return out


ELEMENT_BYTES = {
    "float64": 8.0, "float32": 4.0, "tfloat32": 4.0, "bfloat16": 2.0, "float16": 2.0,
    "float8": 1.0, "int8": 1.0,
}  # fmt: skip


def packed_share(dtype: str) -> float:
    """Bytes of a 2:4 weight, values and 2-bit places, relative to the dense weight."""
    return 0.5 + 0.125 / ELEMENT_BYTES[dtype]


def output_bytes(kind: str, dtype: str) -> float:
    """Bytes of an output element: 8-bit operands accumulate into wider results."""
    if dtype == "int8":
        return 4.0 if kind == DENSE else 2.0
    return max(2.0, ELEMENT_BYTES[dtype])


def typical(kind: str, family: str = "half") -> ProductFit:
    """What is assumed of a card that has not been measured."""
    if family == "single" and kind == DENSE:
        return ProductFit(np.array([SINGLE]), None, SINGLE_SPREAD)
    values = [p.dense if kind == DENSE else p.sparse for p in PARAMETERS]
    member = np.concatenate([values, np.zeros(len(TILES))])
    return ProductFit(member[None, :], None, UNFITTED_SPREAD[kind])


def features(shapes: np.ndarray) -> np.ndarray:
    """The correction's basis, (products, 1 + 48): a constant and fixed random waves in log₂ sizes.

    With a ridge penalty they act as a Gaussian process of a length scale of four octaves.
    Source: Rahimi & Recht 2007, random Fourier features.
    """
    directions, phases = _waves()
    angles = (np.log2(shapes) - 11.0) @ directions + phases
    waves = np.sqrt(8.0 / _WAVES) * np.cos(angles)
    return np.column_stack([np.ones(len(shapes)), waves])


@cache
def _waves() -> tuple[np.ndarray, np.ndarray]:
    """Directions and phases by the golden ratio's additive recurrence: no generator, no seed.

    Directions are three Student-t deviates of 3 degrees of freedom (a Matérn-3/2 spectrum),
    divided by four octaves. Source: Roberts 2018, the R_d low-discrepancy sequence.
    """
    from scipy.special import stdtrit  # scipy.stats would be another 50 MB

    root = 1.1673039782614187  # the positive solution of x⁵ = x + 1
    steps = root ** -np.arange(1.0, 5.0)
    points = (0.5 + np.outer(np.arange(1, _WAVES + 1), steps)) % 1.0
    return stdtrit(3.0, points[:, :3]).T / 4.0, 2.0 * np.pi * points[:, 3]


def parse_fit(kind: str, table: Mapping[str, list[float]]) -> dict[str, ProductFit]:
    """Family → fit, from a specification's table: "half.0", "half.1", …, "half.correction" and
    "half.spread".

    Raises:
        InputError: an unknown family or entry, a list of the wrong length, a number that is not
            finite, a parameter that is not above 0.
    """
    families: dict[str, dict[str, np.ndarray]] = {}
    for key, numbers in table.items():
        family, _, entry = key.partition(".")
        lengths = {"correction": 1 + _WAVES, "spread": 2}
        expected = MEMBER if entry.isdigit() else lengths.get(entry)
        if family not in set(FAMILIES.values()) or expected is None:
            known = ", ".join(sorted(set(FAMILIES.values())))
            raise InputError(
                f"{kind} fit: key {key!r}; allowed is FAMILY.NUMBER, FAMILY.correction, "
                f"FAMILY.spread with family one of {known}"
            )
        values = np.asarray(numbers, float)
        if values.shape != (expected,) or not np.isfinite(values).all():
            raise InputError(f"{kind} fit: {key!r} has {values.size} numbers; allowed: {expected}")
        if entry.isdigit() and (values[: len(PARAMETERS)] <= 0).any():
            raise InputError(f"{kind} fit: {key!r} has a parameter that is not above 0")
        families.setdefault(family, {})[entry] = values
    return {name: _fit_of(kind, name, entries) for name, entries in families.items()}


def _fit_of(kind: str, family: str, entries: Mapping[str, np.ndarray]) -> ProductFit:
    members = [values for name, values in sorted(entries.items()) if name.isdigit()]
    if not members or "spread" not in entries:
        raise InputError(f"{kind} fit: {family} needs '{family}.0' and '{family}.spread'")
    low, high = entries["spread"]
    return ProductFit(np.stack(members), entries.get("correction"), (float(low), float(high)))
