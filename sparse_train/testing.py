"""Property tests for your own algorithms and patterns.

    from sparse_train.testing import check_algorithm
    check_algorithm(MyAlgorithm())

Each check runs Hypothesis: it draws weights with many ties, masks of the pattern, gradients and
budgets, and raises an AssertionError that names the law and shows the smallest example that breaks
it. `machine` makes a rule-based state machine that trains, saves, loads and copies at will.
"""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from torch import nn

from hwsim import Mask
from sparse_train.algorithms._base import Algorithm, Outcome, View
from sparse_train.patterns import Projection, projection
from sparse_train.sparsify import Sparsifier, sparsify

Maker = Callable[[nn.Module, torch.optim.Optimizer], Sparsifier]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}
FIXED_DENSITY = ("n_m", "transposable_n_m")


# Strategies.


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
    if pattern.name in FIXED_DENSITY:
        return st.just(round(size * pattern.n / pattern.m))  # type: ignore[attr-defined]
    return st.integers(0, size)


@st.composite
def masks(draw: Any, pattern: Projection, shape: tuple[int, int], budget: int) -> np.ndarray:
    """A mask of the pattern."""
    return pattern.project(np.abs(draw(matrices(shape))), budget)


@st.composite
def views(draw: Any, pattern: Projection, *, smaller: bool = False, within: bool = False) -> View:
    """What an update sees: one to three layers.

    Args:
        pattern: of the masks.
        smaller: budgets are at most what is active, as for algorithms that only prune.
        within: budgets are what is active.
    """
    fixed = pattern.name in FIXED_DENSITY
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
    )


def schedules() -> st.SearchStrategy[str]:
    """Names of schedules."""
    return st.sampled_from(["constant", "linear", "quadratic", "cubic", "cosine", "exponential"])


# Checks of pure functions.


def check_pattern(pattern: str | Projection, *, examples: int = 100) -> None:
    """Every law of a projection: in the pattern, exact, deterministic, stable, and pure."""
    chosen = projection(pattern)

    @settings(_quiet(examples))
    @given(st.data())
    def laws(data: st.DataObject) -> None:
        shape = data.draw(shapes())
        budget = data.draw(budgets(chosen, shape))
        scores = np.abs(data.draw(matrices(shape)))
        before = scores.copy()
        mask = chosen.project(scores, budget)
        _is_mask("project", mask, shape)
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

    laws()


def check_update(
    algorithm: Algorithm, pattern: str | Projection | None = None, *, examples: int = 100
) -> None:
    """Every law of an algorithm's `update`: pure, exact, in the pattern, the largest kept."""
    chosen = projection(pattern or (algorithm.patterns or (algorithm.pattern,))[0])
    prunes = algorithm.first_mask == "dense"

    @settings(_quiet(examples))
    @given(views(chosen, smaller=prunes, within=algorithm.update_interval == 0))
    def laws(view: View) -> None:
        state = algorithm.start(_again(view))
        frozen = copy.deepcopy((view.weights, view.masks, view.gradients, state))
        rng = copy.deepcopy(view.rng)
        one = algorithm.update(view, state)
        now = (view.weights, view.masks, view.gradients, state)
        assert _same(now, frozen), "update writes to its input"
        two = algorithm.update(_again(view, rng), copy.deepcopy(state))
        assert _same(one.masks, two.masks), "equal input, other masks: chance beside rng"
        _check_masks(algorithm, view, one)

    laws()


def _check_masks(algorithm: Algorithm, view: View, outcome: Outcome) -> None:
    assert set(outcome.masks) == set(view.masks), "masks of other layers than the view's"
    pattern = view.pattern
    for name, old in view.masks.items():
        new, budget = outcome.masks[name], view.budgets[name]
        _is_mask(f"mask of {name!r}", new, old.shape)
        assert Mask(new).satisfies(pattern.definition), f"layer {name!r} leaves the pattern"
        if algorithm.budget == "layer":
            asked = pattern.capacity(old.shape, budget)
            if algorithm.first_mask == "dense":
                asked = min(asked, pattern.units(old))  # It only prunes.
            found = pattern.units(new)
            assert found == asked, f"layer {name!r}: {found} units active; the budget is {asked}"
        assert new.any() or not old.any() or budget == 0, f"layer {name!r} is emptied"
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


# Checks of training.


def small_model(seed: int = 0, width: int = 10) -> nn.Module:
    """Linear and convolution, of shapes that no block divides."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, width), nn.ReLU(),
        nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 2),
    )  # fmt: skip


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier, seed: int
) -> bool:
    """One step on random data; whether masks changed."""
    torch.manual_seed(seed)
    optimizer.zero_grad()
    for _ in range(2):
        (model(torch.randn(4, 3, 7)).square().mean() / 2).backward()
    optimizer.step()
    return sparsifier.step()


def check_invariants(sparsifier: Sparsifier, optimizer: torch.optim.Optimizer) -> None:
    """Weights zero where inactive; moments zero where nothing is trained; masks in the pattern."""
    for name, layer in sparsifier.layers.items():
        mask = sparsifier.masks()[name]
        assert layer.mask.dtype == torch.bool, f"mask of {name!r} is {layer.mask.dtype}"
        assert mask.satisfies(sparsifier.pattern.definition), f"layer {name!r} leaves the pattern"
        stray = layer.parameter.detach()[~layer.mask]
        assert not stray.any(), f"layer {name!r}: an inactive weight is {stray[stray != 0][0]}"
        trained = sparsifier.trained_mask(name)
        for key, value in optimizer.state[layer.parameter].items():
            if torch.is_tensor(value) and value.shape == layer.parameter.shape:
                alive = value[~trained]
                assert not alive.any(), f"layer {name!r}: {key} lives on where nothing is trained"


def check_training(make: Maker, *, steps: int = 8, optimizers: tuple[str, ...] = ()) -> None:
    """The invariants after every step, of each optimizer; and resumed equals never interrupted.

    Args:
        make: model, optimizer → Sparsifier (or your own with its methods).
        steps: of training; a save and load falls on each of them once.
        optimizers: names in OPTIMIZERS; all of them by default.
    """
    for name in optimizers or tuple(OPTIMIZERS):
        model = small_model()
        optimizer = OPTIMIZERS[name](model.parameters())
        sparsifier = make(model, optimizer)
        saved = []
        for step in range(steps):
            saved.append(_saved(model, optimizer, sparsifier))
            _checked_step(model, optimizer, sparsifier, step)
        for start in (steps // 2, steps - 1):
            other = small_model(seed=9)
            other_optimizer = OPTIMIZERS[name](other.parameters())
            resumed = make(other, other_optimizer)
            _load(saved[start], other, other_optimizer, resumed)
            for step in range(start, steps):
                train_step(other, other_optimizer, resumed, step)
            assert resumed.masks() == sparsifier.masks(), f"resumed after {start}: other masks"
            for one, two in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(one, two), f"resumed after {start}: other weights"


def _checked_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier, step: int
) -> None:
    before = {name: mask.array for name, mask in sparsifier.masks().items()}
    changed = train_step(model, optimizer, sparsifier, step)
    check_invariants(sparsifier, optimizer)
    after = {name: mask.array for name, mask in sparsifier.masks().items()}
    assert changed == (not _same(before, after)), "step() does not say whether masks changed"
    if sparsifier.algorithm.dense_weights:
        return
    for name, layer in sparsifier.layers.items():
        grown = torch.from_numpy(after[name] & ~before[name]).view(layer.weight_shape)
        for key, value in optimizer.state[layer.parameter].items():
            if torch.is_tensor(value) and value.shape == layer.parameter.shape:
                assert not value[grown].any(), f"layer {name!r}: {key} of a grown weight lives"
        if sparsifier.algorithm.first_mask != "dense":
            stale = layer.parameter.detach()[grown]
            assert not stale.any(), f"layer {name!r}: a grown weight starts at {stale}"


def check_algorithm(
    algorithm: Algorithm,
    pattern: str | Projection | None = None,
    *,
    examples: int = 50,
    optimizers: tuple[str, ...] = (),
) -> None:
    """All laws of an algorithm: those of its update, and those of a model it trains.

    Raises:
        AssertionError: names the law and shows the smallest example that Hypothesis found.
    """
    check_update(algorithm, pattern, examples=examples)
    check_training(maker(algorithm, pattern), optimizers=optimizers)


def maker(algorithm: Algorithm, pattern: str | Projection | None = None) -> Maker:
    """model, optimizer → Sparsifier with updates every third step, at a density that fits."""
    chosen = projection(pattern or (algorithm.patterns or (algorithm.pattern,))[0])
    fixed = chosen.name in FIXED_DENSITY
    density = chosen.n / chosen.m if fixed else 0.3  # type: ignore[attr-defined]

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsifier:
        return sparsify(
            model, optimizer, algorithm, density, chosen,
            distribution="uniform" if fixed else "erk",
            schedule="constant" if fixed else None,
            update_interval=min(3, algorithm.update_interval), total_steps=16,
        )  # fmt: skip

    return make


def machine(
    algorithm: Algorithm, pattern: str | Projection | None = None
) -> type[RuleBasedStateMachine]:
    """A state machine that trains, saves, loads, copies and resizes in any order.

    TestMine = machine(MyAlgorithm()).TestCase
    """
    make = maker(algorithm, pattern)

    class AlgorithmMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self._build(10)

        def _build(self, width: int) -> None:
            self.model = small_model(width=width)
            self.width = width
            self.optimizer = OPTIMIZERS["adamw"](self.model.parameters())
            self.sparsifier = make(self.model, self.optimizer)

        @rule(steps=st.integers(1, 4))
        def train(self, steps: int) -> None:
            for _ in range(steps):
                _checked_step(self.model, self.optimizer, self.sparsifier, self.sparsifier.steps)

        @rule()
        def save_and_load(self) -> None:
            saved = _saved(self.model, self.optimizer, self.sparsifier)
            masks = self.sparsifier.masks()
            self._build(self.width)
            _load(saved, self.model, self.optimizer, self.sparsifier)
            assert self.sparsifier.masks() == masks, "loaded masks differ from those saved"

        @rule()
        def copy_and_go_on(self) -> None:
            whole = (self.model, self.optimizer, self.sparsifier)
            self.model, self.optimizer, self.sparsifier = copy.deepcopy(whole)

        @rule(width=st.integers(1, 14))
        def resize(self, width: int) -> None:
            self._build(width)

        @invariant()
        def holds(self) -> None:
            check_invariants(self.sparsifier, self.optimizer)

    AlgorithmMachine.TestCase.settings = settings(_quiet(15), stateful_step_count=8)  # type: ignore[attr-defined]
    return AlgorithmMachine


def _saved(
    model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier
) -> io.BytesIO:
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()], file)
    return file


def _load(file: io.BytesIO, *parts: Any) -> None:
    file.seek(0)
    for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)


def _quiet(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


def _is_mask(what: str, mask: np.ndarray, shape: tuple[int, int]) -> None:
    kind = getattr(mask, "dtype", type(mask).__name__)
    assert kind == np.bool_, f"{what} is of {kind}, not bool"
    assert mask.shape == shape, f"{what} has shape {mask.shape}, not {shape}"


def _again(view: View, rng: np.random.Generator | None = None) -> View:
    """The same view with a stream of its own."""
    return dataclasses.replace(view, rng=copy.deepcopy(view.rng if rng is None else rng))


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(one[k], two[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two)
