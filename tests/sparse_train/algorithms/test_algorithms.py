"""SET, RigL and static: reference cases, tiny literal examples and counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from sparse_train.algorithms import ALGORITHMS, View
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.algorithms.static import Static
from sparse_train.patterns.unstructured import Unstructured

DATA = json.loads((Path(__file__).parents[2] / "data" / "rigl_update.json").read_text())
ROUNDING = {"jaxpruner": "round", "ITOP": "ceil", "GraNet": "ceil"}


def bits(text):
    return np.frombuffer(text.encode(), dtype=np.uint8) == ord("1")


def inputs(case):
    given = DATA["inputs"][case["inputs"]]
    shape = case["shape"]
    weight = np.array(given["weight_masked"], dtype=np.float32).reshape(shape)
    grad = np.array(given["grad_dense"], dtype=np.float32).reshape(shape)
    return weight, grad, bits(given["mask_old"]).reshape(shape)


def view(weight, mask, gradient=None, *, fraction=0.3, budget=None, step=100, seed=0):
    return View(
        step=step,
        weights={"a": weight},
        masks={"a": mask},
        budgets={"a": int(mask.sum()) if budget is None else budget},
        gradients=None if gradient is None else {"a": gradient},
        drop_fraction=fraction,
        pattern=Unstructured(),
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize(
    "case",
    [c for c in DATA["cases"] if c["anchor"] != "sparsimony"],
    ids=lambda c: f"{c['anchor']}-{c['inputs']}",
)
def test_rigl_masks_are_those_of_every_code_with_its_own_rounding(case):
    weight, grad, mask = inputs(case)
    rule = RigL(rounding=ROUNDING.get(case["anchor"], "floor"))
    found = rule.update(view(weight, mask, grad, fraction=case["drop_fraction"]), {}).masks["a"]
    assert np.array_equal(found.reshape(-1), bits(case["mask_new"]))
    assert int(found.sum()) == case["nnz_new"] == case["nnz_old"]


@pytest.mark.parametrize(
    "case", [c for c in DATA["cases"] if c["anchor"] == "rigl"], ids=lambda c: c["how"][-60:]
)
def test_reinit_when_same_resets_exactly_the_weights_dropped_and_regrown(case):
    weight, grad, mask = inputs(case)
    same = "reinit_when_same=True" in case["how"]
    rule = RigL(reinit_when_same=same)
    outcome = rule.update(view(weight, mask, grad, fraction=case["drop_fraction"]), {})
    reset = 0 if outcome.reset is None else int(outcome.reset["a"].sum())
    assert reset == (case["dropped_then_regrown"] if same else 0)


@pytest.mark.parametrize(
    "case", [c for c in DATA["cases"] if c["anchor"] == "sparsimony" and c["nnz_old"] < 160]
)
def test_losing_a_weight_in_an_update_is_not_reproduced(case):
    weight, grad, mask = inputs(case)
    found = RigL().update(view(weight, mask, grad, fraction=case["drop_fraction"]), {}).masks["a"]
    assert case["nnz_new"] != case["nnz_old"]
    assert int(found.sum()) == case["nnz_old"]


def test_rigl_by_hand():
    weight = np.array([[3, -1, 2, 0, 0, 0]], dtype=np.float32)
    mask = weight != 0
    grad = np.array([[9, 1, 9, -5, 4, 6]], dtype=np.float32)
    found = RigL().update(view(weight, mask, grad, fraction=0.34), {}).masks["a"]
    # int(3 · 0.34) = 1 is dropped, the −1; the largest gradient outside what is kept is the 6.
    assert found.tolist() == [[True, False, True, False, False, True]]


def test_a_weight_just_dropped_may_come_back():
    weight = np.array([[3, 1, 0]], dtype=np.float32)
    grad = np.array([[0, 9, 1]], dtype=np.float32)
    found = RigL().update(view(weight, weight != 0, grad, fraction=0.5), {}).masks["a"]
    assert found.tolist() == [[True, True, False]]


def test_ties_go_to_the_lowest_index():
    weight = np.array([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=np.float32)
    grad = np.ones((1, 8), dtype=np.float32)
    found = RigL().update(view(weight, weight != 0, grad, fraction=0.5), {}).masks["a"]
    assert found.tolist() == [[True, True, True, True, False, False, False, False]]


def test_static_changes_nothing():
    mask = np.eye(4, dtype=bool)
    found = Static().update(view(mask.astype(np.float32), mask), {}).masks["a"]
    assert np.array_equal(found, mask)


@st.composite
def layers(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(shape) < draw(st.floats(0, 1))
    # Few distinct values, so that ties are common.
    weight = (rng.integers(-3, 4, shape) * mask).astype(np.float32)
    return weight, mask, rng.integers(-3, 4, shape).astype(np.float32)


@settings(deadline=None)
@given(layers(), st.floats(0, 1), st.sampled_from([Set, RigL]), st.data())
def test_counts_are_exact_and_the_largest_are_kept(layer, fraction, rule, data):
    weight, mask, grad = layer
    budget = data.draw(st.integers(0, mask.size))
    found = rule().update(view(weight, mask, grad, fraction=fraction, budget=budget), {}).masks["a"]
    assert found.dtype == bool
    assert int(found.sum()) == budget
    n = int(mask.sum())
    keep = min(n - int(np.floor(round(n * fraction, 9))), budget)
    magnitudes = np.sort(np.abs(weight[mask]))[::-1]
    if keep:
        survivors = np.sort(np.abs(weight[mask & found]))[::-1]
        assert np.array_equal(survivors[:keep], magnitudes[:keep])


@settings(deadline=None)
@given(layers(), st.integers(0, 100))
def test_set_grows_by_its_stream_alone(layer, seed):
    weight, mask, _ = layer
    one, two = (Set().update(view(weight, mask, seed=seed), {}).masks["a"] for _ in range(2))
    assert np.array_equal(one, two)


def test_set_grows_everywhere_equally_often():
    mask = np.zeros((1, 8), dtype=bool)
    mask[0, :4] = True
    weight = np.where(mask, np.float32([[4, 3, 2, 1, 0, 0, 0, 0]]), np.float32(0))
    counts = np.zeros(8)
    for seed in range(3000):
        counts += Set().update(view(weight, mask, fraction=0.25, seed=seed), {}).masks["a"][0]
    assert counts[:3].tolist() == [3000] * 3
    # Binomial(3000, 1/5): five standard deviations are 110.
    assert np.all(np.abs(counts[3:] - 600) < 110)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    weight = np.ones((2, 3), dtype=np.float32)
    weight[0, 1] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        Set().update(view(weight, np.ones((2, 3), dtype=bool)), {})


def test_unknown_rounding_is_refused():
    with pytest.raises(InputError, match="valid: floor, round, ceil"):
        RigL(rounding="up")


@pytest.mark.parametrize("kept", [[True, False], [True, True]])
def test_growth_per_microsecond_pays_for_a_layer_that_would_be_empty(kept):
    # Layer a has the weaker gradients, yet must not be empty; the sum of the budgets is 2.
    one = View(
        step=1,
        weights={"a": np.zeros((1, 1), np.float32), "b": np.float32([[2, 1]]) * np.array([kept])},
        masks={"a": np.array([[False]]), "b": np.array([kept])},
        budgets={"a": 1, "b": 1},
        gradients={"a": np.float32([[0.1]]), "b": np.float32([[1, 1]])},
        drop_fraction=0.0,
        pattern=Unstructured(),
        rng=np.random.default_rng(0),
        learning_rates={"a": 0.1, "b": 0.1},
        output_layer=None,
    )
    masks = ALGORITHMS.get("growth_per_microsecond")().update(one, {}).masks
    assert masks["a"].sum() == 1
    assert masks["b"].sum() == 1


def test_every_algorithm_is_found_by_its_file():
    assert {"rigl", "set", "static"} <= set(ALGORITHMS.names())
    with pytest.raises(InputError, match="did you mean 'rigl'"):
        ALGORITHMS.get("riggl")
