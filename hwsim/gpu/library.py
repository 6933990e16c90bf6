"""Seconds of products by a library's kernels, as a card's fit has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwsim.bounded import prices
from hwsim.gpu import rules
from hwsim.gpu.matmul import (
    DENSE,
    ELEMENT_BYTES,
    FAMILIES,
    PARAMETERS,
    SPARSE,
    ProductCard,
    ProductFit,
    parse_fit,
    typical,
)

_DRAM_SHARE = [p.name for p in PARAMETERS].index("dram_share")


class Library:
    """Products on tensor cores and on CUDA cores, launch included, packing not.

    Args:
        card: what of the data sheet decides.
        peak: dtype → dense FLOP/s.
        fits: kind → the specification's table of fits; see `hwsim/gpu/matmul.py`.
        searched: whether the library looked for its fastest algorithm, on tensor cores.
        square: whether batches on CUDA cores run in tiles of 128 × 128 alone.
    """

    def __init__(
        self, card: ProductCard, peak: Callable[[str], float],
        fits: Mapping[str, Mapping[str, list[float]] | None], *, searched: bool, square: bool,
    ) -> None:  # fmt: skip
        self.fits: dict[tuple[str, str], ProductFit] = {
            (kind, family): found
            for kind, table in fits.items()
            for family, found in parse_fit(kind, table or {}).items()
        }
        self._card, self._peak = card, peak
        self._searched, self._square = searched, square
        self._known: dict[Any, float] = prices()
        self._launches: dict[tuple[str, str], float] = {}

    def fit_of(self, kind: str, dtype: str) -> ProductFit:
        """The card's own, or what is typical."""
        family = FAMILIES[dtype]
        return self.fits.get((kind, family)) or typical(kind, family)

    def seconds(self, kind: str, dtype: str, shapes: np.ndarray) -> np.ndarray:
        """Of products, shapes as in `hwsim/gpu/time.py`."""
        found, peak = self.fit_of(kind, dtype), self._peak(dtype)
        single = FAMILIES[dtype] == "single"
        logs = found.log_seconds(kind, shapes, self._card, peak, dtype)
        if not self._searched and not single:
            tiles = "largest" if kind == SPARSE else "whole"
            default = found.log_seconds(kind, shapes, self._card, peak, dtype, tiles=tiles)
            logs = np.maximum(logs, default)  # a search finds the default too
        if self._square and single and shapes.shape[1] > 3:
            many = shapes[:, 3] > 1
            logs[many] = found.log_seconds(
                kind, shapes[many], self._card, peak, dtype, tiles="square"
            )
        if kind == DENSE:
            vectors = (shapes[:, :2] == 1).any(axis=1)
            logs[vectors] = np.minimum(logs[vectors], self._times_vector(dtype, shapes[vectors]))
        return np.exp(logs)

    def _times_vector(self, dtype: str, shapes: np.ndarray) -> np.ndarray:
        """ln seconds of a matrix times a vector: libraries read it once, with no tile to fill.

        Source: NVIDIA's cuBLAS has `gemv` kernels, which `gemm` takes for one row or column; what
        they reach of the bandwidth is taken to be what products do.
        """
        members = self.fit_of(DENSE, dtype).members
        launch_s, share = (np.exp(np.log(members[:, i]).mean()) for i in (0, _DRAM_SHARE))
        m, n, k = shapes[:, :3].T
        many = shapes[:, 3] if shapes.shape[1] > 3 else 1.0
        moved = ELEMENT_BYTES[dtype] * (m * k + n * k + m * n) * many
        return np.log(launch_s + moved / (self._card.dram_bytes_per_s * min(share, 1.0)))

    def one(self, kind: str, dtype: str, shape: rules.Product | tuple[float, ...]) -> float:
        """Of one product."""
        key = (kind, dtype, shape)
        known = self._known.get(key)
        if known is None:
            known = float(self.seconds(kind, dtype, np.array([shape], float))[0])
            self._known[key] = known
        return known

    def launch_s(self, kind: str, dtype: str) -> float:
        """From launch to the first instruction, by the fit: the geometric mean of its members."""
        family = kind, FAMILIES[dtype]
        if family not in self._launches:
            members = self.fit_of(kind, dtype).members
            self._launches[family] = float(np.exp(np.log(members[:, 0]).mean()))
        return self._launches[family]
