"""Laws of what decides without a model: patterns, updates, schedules, budgets."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwsim import Mask
from sparse_train.algorithms import Algorithm, Outcome, View
from sparse_train.patterns import Projection, projection
from sparse_train.testing._strategies import budgets, matrices, quiet, shapes, views


def check_pattern(pattern: str | Projection, *, examples: int = 100, shrink: bool = True) -> None:
    """Every law of a projection: in the pattern, exact, deterministic, stable, and pure.

    Args:
        pattern: a name or your own.
        examples: how many Hypothesis draws.
        shrink: whether it then looks for the smallest that breaks the law.
    """
    chosen = projection(pattern)

    @quiet(examples, shrink=shrink)
    @given(st.data())
    def laws(data: st.DataObject) -> None:
        shape = data.draw(shapes())
        budget = data.draw(budgets(chosen, shape))
        scores = np.abs(data.draw(matrices(shape)))
        before = scores.copy()
        mask = chosen.project(scores, budget)
        is_mask("project", mask, shape)
        assert np.array_equal(scores, before), "project writes to its scores"
        assert Mask(mask).satisfies(chosen.definition), f"project leaves the pattern: {mask}"
        asked = chosen.capacity(shape, budget)
        assert chosen.units(mask) == asked, f"{chosen.units(mask)} units; asked: {asked}"
        assert mask.any() == (budget > 0), "a budget above 0 gives an empty layer"
        assert np.array_equal(mask, chosen.project(before, budget)), "equal scores, other masks"
        kept = chosen.keep(scores, mask, chosen.units(mask), budget)
        assert np.array_equal(kept, mask), "keeping all units loses some"
        fewer = chosen.keep(scores, mask, chosen.units(mask) // 2, budget)
        assert not (fewer & ~mask).any(), "keep adds units"
        again = chosen.fill(np.abs(data.draw(matrices(shape))), fewer, budget)
        assert Mask(again).satisfies(chosen.definition), "fill leaves the pattern"
        assert chosen.units(again) == asked, "fill misses the budget"
        if chosen.name != "transposable_n_m":
            assert not (fewer & ~again).any(), "fill drops what was kept"
        moved = chosen.rearranged(scores, mask, budget, data.draw(st.integers(1, 4)))
        assert Mask(moved).satisfies(chosen.definition), "rearranged leaves the pattern"
        assert chosen.units(moved) == asked, "rearranged misses the budget"

    laws()


def check_update(
    algorithm: Algorithm,
    pattern: str | Projection | None = None,
    *,
    examples: int = 100,
    shrink: bool = True,
) -> None:
    """Every law of an algorithm's `update`: pure, exact, in the pattern, the largest kept.

    Args:
        algorithm: yours.
        pattern: a name or your own; by default the algorithm's.
        examples: how many Hypothesis draws.
        shrink: whether it then looks for the smallest that breaks the law.
    """
    chosen = pattern_of(algorithm, pattern)
    prunes = algorithm.first_mask == "dense"

    @quiet(examples, shrink=shrink)
    @given(views(chosen, smaller=prunes, within=algorithm.update_interval == 0))
    def laws(view: View) -> None:
        state = algorithm.start(_again(view))
        frozen = copy.deepcopy((view.weights, view.masks, view.gradients, state))
        rng = copy.deepcopy(view.rng)
        one = algorithm.update(view, state)
        now = (view.weights, view.masks, view.gradients, state)
        assert same(now, frozen), "update writes to its input"
        two = algorithm.update(_again(view, rng), copy.deepcopy(state))
        assert same(one.masks, two.masks), "equal input, other masks: chance beside rng"
        elsewhere = _again(_salted(view), rng)
        three = algorithm.update(elsewhere, algorithm.start(_again(elsewhere)))
        found = {str(name): mask for name, mask in three.masks.items()}
        assert same(dict(one.masks), found), "another process, other masks: a salted hash"
        _check_masks(algorithm, view, one)
        _check_no_change(algorithm, view)

    laws()


def check_option(
    make: Callable[[Any], Algorithm],
    values: Sequence[Any],
    pattern: str | Projection | None = None,
    *,
    examples: int = 200,
) -> None:
    """An option has an effect: each two of its values give other masks in some example.

    Args:
        make: value → algorithm, such as `lambda gamma: SRigL(gamma=gamma)`.
        values: at least two.
    """
    for one, other in pairwise(values):
        differs = _ever_differ(make(one), make(other), pattern, examples)
        assert differs, f"values {one!r} and {other!r} of the option give equal masks always"


def _ever_differ(
    one: Algorithm, other: Algorithm, pattern: str | Projection | None, examples: int
) -> bool:
    found = False

    @quiet(examples)
    @given(views(pattern_of(one, pattern)))
    def look(view: View) -> None:
        nonlocal found
        if not found:
            masks = [a.update(_again(view), a.start(_again(view))).masks for a in (one, other)]
            found = not same(*masks)

    look()
    return found


def check_schedule(schedule: Callable[[float], float], start: float, end: float) -> None:
    """A schedule begins at `start`, ends at `end` to the bit, and stays between the two."""
    assert schedule(0.0) == start, f"starts at {schedule(0.0)}, not at {start}"
    assert schedule(1.0) == end, f"ends at {schedule(1.0)}, not at {end}"
    low, high = min(start, end) - 1e-12, max(start, end) + 1e-12

    @quiet(100)
    @given(st.floats(0, 1))
    def law(progress: float) -> None:
        value = schedule(progress)
        assert math.isfinite(value) and low <= value <= high, f"{value} at progress {progress}"

    law()


def check_budgets(
    function: Callable[[Mapping[str, tuple[int, ...]], Mapping[str, float]], Mapping[str, int]],
) -> None:
    """The budgets of densities nnz / size are these nnz: 'no change' changes nothing.

    Args:
        function: shapes, density of each layer → active weights of each.
    """

    @quiet(200)
    @given(st.lists(shapes(200), min_size=1, max_size=4), st.data())
    def law(chosen: list[tuple[int, int]], data: st.DataObject) -> None:
        named = {str(place): shape for place, shape in enumerate(chosen)}
        nnz = {n: data.draw(st.integers(0, a * b)) for n, (a, b) in named.items()}
        densities = {n: nnz[n] / (a * b) for n, (a, b) in named.items()}
        found = dict(function(named, densities))
        assert found == nnz, f"densities of {nnz} active weights give budgets {found}"

    law()


def pattern_of(algorithm: Algorithm, pattern: str | Projection | None) -> Projection:
    """The pattern asked for, or the algorithm's own."""
    return projection(pattern or (algorithm.patterns or (algorithm.pattern,))[0])


def is_mask(what: str, mask: np.ndarray, shape: tuple[int, int]) -> None:
    kind = getattr(mask, "dtype", type(mask).__name__)
    assert kind == np.bool_, f"{what} is of {kind}, not bool"
    assert mask.shape == shape, f"{what} has shape {mask.shape}, not {shape}"


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, arrays included."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def _check_masks(algorithm: Algorithm, view: View, outcome: Outcome) -> None:
    assert set(outcome.masks) == set(view.masks), "masks of other layers than the view's"
    pattern = view.pattern
    for name, old in view.masks.items():
        new, budget = outcome.masks[name], view.budgets[name]
        is_mask(f"mask of {name!r}", new, old.shape)
        assert Mask(new).satisfies(pattern.definition), f"layer {name!r} leaves the pattern"
        if algorithm.budget == "layer":
            asked = pattern.capacity(old.shape, budget)
            if algorithm.first_mask == "dense":
                asked = min(asked, pattern.units(old))  # It only prunes.
            found = pattern.units(new)
            assert found == asked, f"layer {name!r}: {found} units active; the budget is {asked}"
        assert new.any() or not old.any() or budget == 0, f"layer {name!r} is emptied"
        # An algorithm that moves weights between layers may leave too few for every neuron.
        held = budget if algorithm.budget == "layer" else np.count_nonzero(new)
        if name == view.output_layer and pattern.name == "fan_in" and held >= len(new):
            assert new.any(axis=1).all(), f"output layer {name!r}: a neuron is ablated"
        if algorithm.keeps_largest and pattern.name == "unstructured":
            _largest_survive(name, view, new)
        if outcome.weights is not None:
            grown = new & ~old
            stale = outcome.weights[name][grown]
            fresh = not stale.any() or outcome.reset is not None
            assert fresh, f"layer {name!r}: a grown weight starts at {stale}, not at 0"
    if pattern.name == "unstructured" and algorithm.budget != "layer":
        active = sum(int(mask.sum()) for mask in outcome.masks.values())
        asked = sum(view.budgets.values())
        if algorithm.budget == "total":
            assert active == asked, f"{active} active weights in all; the budgets are {asked}"
        before = sum(int(mask.sum()) for mask in view.masks.values())
        assert active <= max(before, asked), "more weights than the budgets and before"


def _largest_survive(name: str, view: View, new: np.ndarray) -> None:
    old = view.masks[name]
    active = int(old.sum())
    count = min(active - int(np.ceil(active * view.drop_fraction)), view.budgets[name])
    magnitude = np.abs(view.weights[name])
    largest = np.sort(magnitude[old])[::-1][: max(count, 0)]
    kept = np.sort(magnitude[old & new])[::-1][: max(count, 0)]
    assert np.array_equal(largest, kept), (
        f"layer {name!r}: of the {count} largest weights {largest}, only {kept} were kept"
    )


def _check_no_change(algorithm: Algorithm, view: View) -> None:
    """With nothing to drop and a budget of what is active, masks stay."""
    active = {name: int(mask.sum()) for name, mask in view.masks.items()}
    exact = all(
        view.pattern.capacity(mask.shape, active[name]) == view.pattern.units(mask)
        for name, mask in view.masks.items()
    )
    if not algorithm.keeps_largest or not exact:
        return
    still = _again(dataclasses.replace(view, budgets=active, drop_fraction=0.0, update=0))
    outcome = algorithm.update(still, algorithm.start(_again(still)))
    assert same(outcome.masks, view.masks), "nothing to drop nor to grow, but masks change"


class _Salted(str):
    """A layer's name whose hash is another, as that of any string in another process."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(("salt", str(self)))


def _salted(view: View) -> View:
    named = {name: _Salted(name) for name in view.masks}

    def moved(values: Mapping[str, Any]) -> dict[str, Any]:
        return {named[name]: value for name, value in values.items()}

    return dataclasses.replace(
        view,
        weights=moved(view.weights),
        masks=moved(view.masks),
        budgets=moved(view.budgets),
        gradients=None if view.gradients is None else moved(view.gradients),
        learning_rates=moved(view.learning_rates),
        output_layer=None if view.output_layer is None else named[view.output_layer],
    )


def _again(view: View, rng: np.random.Generator | None = None) -> View:
    """The same view with a stream of its own."""
    return dataclasses.replace(view, rng=copy.deepcopy(view.rng if rng is None else rng))
