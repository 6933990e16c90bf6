"""Which layers compute their activations again in the backward pass, and what others keep.

Source: Chen et al. 2016 (Training Deep Nets with Sublinear Memory Cost), section 3, for leaving out
and computing again; Korthikanti et al. 2022 (arXiv 2205.05198), sections 4 and 5, for full and
selective recomputation.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.cluster.forms import pipeline
from hwsim.cluster.parts import Part
from hwsim.cluster.plan import ParallelPlan


def recomputed(parts: Sequence[Part], plan: ParallelPlan) -> frozenset[int]:
    """Places in `parts` of the layers that compute something again.

    Each n-th layer of what a stage holds in one piece, counted from its end: so that, with n above
    1, the layer whose backward pass comes first is kept, and what it frees is room for the next.

    Raises:
        InputError: fewer layers than the plan has pieces.
    """
    if plan.recompute == "none":
        return frozenset()
    found = set()
    for first, end in pipeline.bounds(max(len(parts) - 2, 1), plan.pp, plan.interleave):
        layers = [i for i in range(1 + first, 1 + end) if i < len(parts) and _may(parts[i], plan)]
        found.update(layers[-plan.every :: -plan.every])
    return frozenset(found)


def _may(part: Part, plan: ParallelPlan) -> bool:
    """Whether a part has anything to compute again: a layer, or scores that it keeps."""
    return bool(part.heads) and (plan.recompute == "full" or part.scores)
