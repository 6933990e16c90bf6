"""Hypothesis strategies: what an algorithm or a pattern can meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from sparse_train.algorithms import View
from sparse_train.patterns import Projection


def shapes(largest: int = 12) -> st.SearchStrategy[tuple[int, int]]:
    """(n_out, n_in) that blocks seldom divide."""
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@st.composite
def matrices(draw: Any, shape: tuple[int, int]) -> np.ndarray:
    """float32 weights or gradients: few distinct values (many ties), or all different."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return rng.integers(-3, 4, shape).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def budgets(pattern: Projection, shape: tuple[int, int]) -> st.SearchStrategy[int]:
    """Budgets that masks of this pattern and shape can have."""
    size = shape[0] * shape[1]
    if pattern.only_density is not None:
        return st.just(round(size * pattern.only_density))
    return st.integers(0, size)


@st.composite
def masks(draw: Any, pattern: Projection, shape: tuple[int, int], budget: int) -> np.ndarray:
    """A mask of the pattern."""
    return pattern.project(np.abs(draw(matrices(shape))), budget)


@st.composite
def views(draw: Any, pattern: Projection, *, smaller: bool = False, within: bool = False) -> View:
    """What an update sees: one to three layers, the last of which may give the output.

    Args:
        pattern: of the masks.
        smaller: budgets are at most what is active, as for algorithms that only prune.
        within: budgets are what is active.
    """
    fixed = pattern.only_density is not None
    names = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True))
    seen: dict[str, dict[str, Any]] = {k: {} for k in ("weights", "masks", "grads", "budgets")}
    for name in names:
        shape = draw(shapes())
        budget = draw(budgets(pattern, shape))
        mask = draw(masks(pattern, shape, budget))
        if within:
            budget = int(mask.sum())
        elif not fixed:
            most = int(mask.sum()) if smaller else mask.size
            budget = draw(st.integers(min(1, most), most))
        seen["masks"][name], seen["budgets"][name] = mask, budget
        seen["weights"][name] = np.where(mask, draw(matrices(shape)), np.float32(0))
        seen["grads"][name] = draw(matrices(shape))
    return View(
        step=draw(st.integers(1, 1000)),
        weights=seen["weights"],
        masks=seen["masks"],
        budgets=seen["budgets"],
        gradients=seen["grads"],
        drop_fraction=draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])),
        pattern=pattern,
        rng=np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        learning_rates=dict.fromkeys(names, 0.1),
        output_layer=draw(st.sampled_from([None, names[-1]])),
    )


def schedules() -> st.SearchStrategy[str]:
    """Names of schedules."""
    return st.sampled_from(["constant", "linear", "quadratic", "cubic", "cosine", "exponential"])


def quiet(examples: int, *, shrink: bool = True) -> settings:
    """Settings of every check here; without `shrink` the first example found is shown."""
    return settings(
        phases=tuple(Phase) if shrink else (Phase.explicit, Phase.generate),
        max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
