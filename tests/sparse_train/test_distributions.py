import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, load_device
from sparse_train.distributions import Bounded, budgets, distribution, er, erk, uniform
from sparse_train.marginal_time import EqualMarginalTime

CASES = json.loads((Path(__file__).parent.parent / "data" / "densities.json").read_text())
SHAPES = {
    key: {name: tuple(shape) for name, shape in layers} for key, layers in CASES["shapes"].items()
}
LAYERS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), [(erk, "erk"), (er, "er"), (uniform, "uniform")])
def test_densities_are_those_of_the_authors_code(shapes, ours, theirs):
    for sparsity, expected in CASES["densities"][theirs][shapes].items():
        found = ours(SHAPES[shapes], 1 - float(sparsity))
        # Some of the reference's ER values have been through float32.
        assert list(found.values()) == pytest.approx(expected, rel=6e-8 if ours is er else 1e-9)


def test_power_flattens_the_distribution():
    shapes = SHAPES["cnn5"]
    assert erk(shapes, 0.2, power=0.0) == pytest.approx(uniform(shapes, 0.2), abs=1e-4)
    spread = [max(erk(shapes, 0.05, power=p).values()) for p in (0.0, 0.5, 1.0)]
    assert spread == sorted(spread)


@pytest.mark.parametrize("shapes", SHAPES)
def test_clipping_without_sharing_out_is_not_reproduced(shapes):
    """The negative example clips at 1 and loses the rest: its total density is too low."""
    for sparsity, wrong in CASES["densities"]["negative_clipped"][shapes].items():
        sizes = [math.prod(s) for s in SHAPES[shapes].values()]
        asked = (1 - float(sparsity)) * sum(sizes)
        found = erk(SHAPES[shapes], 1 - float(sparsity)).values()
        assert abs(sum(d * n for d, n in zip(found, sizes, strict=True)) - asked) < len(sizes)
        if max(wrong) == 1.0:
            assert abs(sum(d * n for d, n in zip(wrong, sizes, strict=True)) - asked) > len(sizes)


def test_tied_largest_layers_become_dense_together():
    found = erk({"a": (10, 10), "b": (10, 10), "c": (1000, 1000)}, 0.1)
    assert found["a"] == found["b"] == 1.0


def test_kernel_counts_in_erk_and_not_in_er():
    shapes = {"conv": (8, 8, 3, 3), "fc": (64, 64)}
    assert er(shapes, 0.2)["conv"] != pytest.approx(erk(shapes, 0.2)["conv"])


@settings(deadline=None)
@given(LAYERS, st.floats(0, 1), st.sampled_from([uniform, er, erk]))
def test_the_weighted_mean_is_the_density_and_no_layer_is_out_of_range(shapes, density, rule):
    found = rule(shapes, density)
    assert list(found) == list(shapes)
    assert all(0 <= d <= 1 + 1e-12 for d in found.values())
    total = sum(math.prod(s) * found[n] for n, s in shapes.items())
    assert abs(total - density * sum(map(math.prod, shapes.values()))) <= len(shapes) + 1e-6


@settings(deadline=None)
@given(LAYERS, st.floats(0, 1), st.sampled_from([uniform, er, erk]))
def test_budgets_meet_the_total_to_the_integer(shapes, density, rule):
    densities = rule(shapes, density)
    found = budgets(shapes, densities)
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    exact = sum(round(densities[n] * sizes[n], 9) for n in shapes)
    assert sum(found.values()) == max(
        math.floor(exact + 0.5), sum(round(densities[n] * sizes[n], 9) > 0 for n in shapes)
    )
    for name, count in found.items():
        assert isinstance(count, int)
        assert 0 <= count <= sizes[name]
        assert count >= (round(densities[name] * sizes[name], 9) > 0)


def test_density_zero_and_one_are_met_exactly():
    shapes = {"a": (3, 5), "b": (7, 2)}
    assert set(erk(shapes, 0.0).values()) == {0.0}
    assert set(erk(shapes, 1.0).values()) == {1.0}


def test_a_listed_distribution_gives_what_was_listed():
    rule = distribution({"a": 0.5, "b": 0.25})
    assert rule({"a": (4, 4), "b": (8, 8)}, 0.1) == {"a": 0.5, "b": 0.25}


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan"), "half", True, None])
def test_a_density_out_of_range_is_refused(density):
    with pytest.raises(InputError, match="density: value is"):
        erk({"a": (4, 4)}, density)


@pytest.mark.parametrize("shapes", [{}, {"a": (4,)}, {"a": (4, 0)}])
def test_shapes_that_are_none_are_refused(shapes):
    with pytest.raises(InputError, match="shape"):
        erk(shapes, 0.5)


def test_unknown_distribution_lists_the_valid_ones():
    with pytest.raises(InputError, match=r"did you mean 'erk'.*er, erk, uniform"):
        distribution("erkk")


@pytest.mark.parametrize("listed", [{"a": 0.5}, {"a": 0.5, "b": 0.5, "c": 0.5}, {"a": 2, "b": 0.1}])
def test_a_list_that_does_not_fit_is_refused(listed):
    with pytest.raises(InputError):
        distribution(listed)({"a": (2, 2), "b": (2, 2)}, 0.5)


@settings(deadline=None)
@given(LAYERS, st.floats(0, 1), st.sampled_from([uniform, er, erk]), st.data())
def test_a_given_total_is_met_to_the_integer(shapes, density, rule, data):
    densities = rule(shapes, density)
    weights = sum(map(math.prod, shapes.values()))
    total = data.draw(st.integers(0, weights))
    found = budgets(shapes, densities, total)
    least = sum(round(densities[n] * math.prod(s), 9) > 0 for n, s in shapes.items())
    assert sum(found.values()) == max(total, least)
    assert all(0 <= found[n] <= math.prod(s) for n, s in shapes.items())


def test_bounds_hold_and_the_density_is_met():
    shapes = SHAPES["cnn5"]
    rule = Bounded("erk", {"conv*": (0.3, 0.6), "fc1": (0.0, 0.1)})
    found = rule(shapes, 0.2)
    assert all(0.3 <= found[n] <= 0.6 for n in found if n.startswith("conv"))
    assert found["fc1"] <= 0.1
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    assert sum(found[n] * sizes[n] for n in sizes) == pytest.approx(0.2 * sum(sizes.values()))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"a": (0.6, 0.5)}, "least is 0.6"),
        ({"c": (0.1, 0.5)}, "unknown layer in bounds 'c'"),
        ({"*": (0.5, 1.0)}, "bounds do not allow it"),
    ],
)
def test_bounds_that_cannot_be_met_are_refused(bounds, message):
    with pytest.raises(InputError, match=message):
        Bounded("uniform", bounds)({"a": (4, 4), "b": (4, 4)}, 0.1)


def test_equal_marginal_time_prefers_layers_with_cheap_weights_and_meets_the_density():
    # A weight of layer "long" is used for ten times as many rows: it costs ten times the time.
    rule = EqualMarginalTime(load_device("ideal"), {"long": 10_000, "short": 1_000})
    shapes = {"long": (64, 64), "short": (64, 64)}
    found = rule(shapes, 0.3)
    assert found["short"] > found["long"] == pytest.approx(0.01)
    assert sum(found.values()) / 2 == pytest.approx(0.3, abs=1e-6)
    equal = EqualMarginalTime(load_device("ideal"), 1_000)(shapes, 0.3)
    assert equal["long"] == pytest.approx(equal["short"], rel=0.02)
