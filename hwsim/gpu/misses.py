"""By how much products miss a fitted model, and how such misses go together.

A library's choices make neighbouring shapes fast or slow together: what is left of one tells of
the other. A fit that takes each miss for noise of its own bends its physics to them. Here a miss
is a smooth function of log rows, outputs and inputs, plus one of its own per shape, plus noise.
The fit weighs its residuals by that, and the smooth part corrects what it estimates.

Source: Kennedy & O'Hagan 2001, "Bayesian calibration of computer models"; Rasmussen & Williams
2006, "Gaussian Processes for Machine Learning", section 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.gpu.matmul import features

Key = tuple[str, str]

_SMOOTH = 0.02  # standard deviation of each weight of `features`: 0.045 in all
_SHAPE = 0.03  # of what a shape has to itself, in all operand types of a family
_NOISE = 0.04
_KIND = 0.3  # how far dense and 2:4 miss alike
_FAMILY = 0.5  # how far families of operands do
_REWEIGHTINGS = 4


class Misses:
    """The joint distribution of what some products' log times miss.

    Args:
        keys: (kind, family) of each product.
        shapes: (products, 3): rows, outputs, inputs.
        clock: (products,): relative standard deviation that their clock adds.
    """

    def __init__(self, keys: Sequence[Key], shapes: np.ndarray, clock: np.ndarray) -> None:
        self._keys = list(keys)
        self._basis = features(shapes)
        self._noise = np.hypot(_NOISE, clock)
        kinds, families = (np.array(part) for part in zip(*keys, strict=True))
        same_kind = kinds[:, None] == kinds
        same_family = families[:, None] == families
        alike = np.where(same_kind, 1.0, _KIND) * np.where(same_family, 1.0, _FAMILY)
        same_shape = (shapes[:, None] == shapes).all(axis=2)
        self._covariance = _SMOOTH**2 * (self._basis @ self._basis.T) * alike
        self._covariance += _SHAPE**2 * (same_shape & same_kind & same_family)
        self._root = np.linalg.cholesky(self._covariance + np.diag(self._noise**2))

    def whitened(self, misses: np.ndarray) -> np.ndarray:
        """Misses, or columns of their slopes, as independent ones of variance 1."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self._root, misses, lower=True, check_finite=False))

    def corrections(self, misses: np.ndarray) -> dict[Key, np.ndarray]:
        """(kind, family) → the weights of `features` that these misses make most likely.

        Noise of a heavy tail, by reweighting: one product far off tells little of its neighbours.
        """
        weights = np.ones(len(misses))
        pulls = np.zeros(len(misses))
        for _ in range(_REWEIGHTINGS):
            covariance = self._covariance + np.diag(self._noise**2 / weights)
            pulls = np.linalg.solve(covariance, misses)
            left = (misses - self._covariance @ pulls) / self._noise
            weights = 1.0 / np.sqrt(1.0 + left**2)
        return {
            key: self._basis.T @ (self._share(key) * pulls) for key in dict.fromkeys(self._keys)
        }

    def _share(self, key: Key) -> np.ndarray:
        """Covariance of `key`'s weights with what each product pulls at."""
        shares = [
            (1.0 if kind == key[0] else _KIND) * (1.0 if family == key[1] else _FAMILY)
            for kind, family in self._keys
        ]
        return _SMOOTH**2 * np.array(shares)
