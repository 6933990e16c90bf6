"""Selection over all layers at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.errors import InputError
from sparse_train.algorithms._base import View
from sparse_train.patterns import Projection
from sparse_train.selection import top_k
from sparse_train.selection.arrays import count, joined, parted, size


def count_best(
    scores: Mapping[str, np.ndarray], k: int, candidates: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """How many of the k best candidates of all layers lie in each."""
    names = list(scores)
    flat = joined([scores[name] for name in names])
    allowed = joined([candidates[name] for name in names])
    chosen = top_k(flat, min(k, count(allowed)), allowed)
    parts = parted(chosen, [size(scores[name]) for name in names])
    return {name: count(part) for name, part in zip(names, parts, strict=True)}


def prune(
    scores: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], total: int
) -> dict[str, int]:
    """Weights left per layer when only the best `total` active ones stay; no layer is emptied."""
    counts = count_best(scores, total, masks)
    for name, left in counts.items():
        if left == 0 and total > 0 and masks[name].any():
            fullest = max(counts, key=lambda n: counts[n])
            counts[name] += 1
            if counts[fullest] > 1:
                counts[fullest] -= 1
    return counts


def within(view: View, layer: str, scores: np.ndarray, kept: np.ndarray, target: int) -> np.ndarray:
    """What of `kept` has room in the pattern under a layer's new budget `target`."""
    if not kept.any():
        return kept
    room = min(view.pattern.units(kept), view.pattern.capacity(kept.shape, target))
    return view.pattern.keep(scores, kept, room, target)


def unstructured_only(pattern: Projection, algorithm: str) -> None:
    """An InputError for a pattern whose density is fixed: a global count cannot meet it."""
    if pattern.only_density is not None:
        raise InputError(
            f"pattern: {pattern.name} fixes every layer's density, but {algorithm} moves weights "
            "between layers; allowed is a pattern of any density"
        )
