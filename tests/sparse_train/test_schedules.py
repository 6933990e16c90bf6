import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from sparse_train import schedules
from sparse_train.schedules import drop_fraction, is_update_step, last_update_step, piecewise

CASES = json.loads((Path(__file__).parent.parent / "data" / "schedules.json").read_text())["cases"]
DENSITY = st.floats(0.01, 1.0)
NAMES = ("linear", "quadratic", "cubic", "cosine", "exponential")


def cases(anchor, **kind):
    return [c for c in CASES if c["anchor"] == anchor and kind.items() <= c.items()]


@pytest.mark.parametrize("case", cases("rigl-torch", kind="drop_fraction"))
def test_cosine_drop_fraction_is_that_of_rigl_torch(case):
    alpha, end = case["params"]["alpha"], case["params"]["T_end"]
    found = [drop_fraction(alpha, t, end) for t in case["steps"]]
    assert found == pytest.approx(case["value"], abs=1e-12)


@pytest.mark.parametrize("case", [*cases("ITOP"), *cases("GraNet")])
def test_cosine_drop_fraction_with_a_floor_is_that_of_itop(case):
    p = case["params"]
    pairs = [(t, v) for t, v in zip(case["steps"], case["value"], strict=True) if t <= p["T_max"]]
    found = [drop_fraction(p["alpha"], t, p["T_max"], floor=p["eta_min"]) for t, _ in pairs]
    assert found == pytest.approx([v for _, v in pairs], abs=1e-9)


@pytest.mark.parametrize("case", cases("sparse_learning"))
def test_linear_drop_fraction_is_that_of_sparse_learning(case):
    p = case["params"]
    pairs = [(t, v) for t, v in zip(case["steps"], case["value"], strict=True) if t <= p["T_max"]]
    found = [drop_fraction(p["alpha"], t, p["T_max"], shape="linear") for t, _ in pairs]
    assert found == pytest.approx([v for _, v in pairs], abs=1e-9)


@pytest.mark.parametrize("case", [c for c in cases("rigl") if c["params"]["begin"] == 0])
def test_drop_fractions_are_those_of_the_rigl_authors(case):
    p = case["params"]
    shape, power = {
        "cosine": ("cosine", 1),
        "constant": ("constant", 1),
        "exponential_3": ("linear", 3),
    }[p["anneal"]]
    for step, due, value in zip(
        case["steps"], case["is_update"], case["drop_fraction"], strict=True
    ):
        # The authors also update in step 0 and in the last step; there the fraction is 0 or α.
        if due and 0 < step < p["end"]:
            assert is_update_step(step, p["frequency"], p["end"])
            found = drop_fraction(p["drop_fraction"], step, p["end"], shape=shape, power=power)
            assert found == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("case", cases("rigl-torch", kind="update_calendar"))
def test_update_calendar_is_that_of_rigl_torch(case):
    p = case["params"]
    found = [
        (t, drop_fraction(p["alpha"], t, p["T_end"]))
        for t in range(p["total"])
        if is_update_step(t, p["delta"], p["T_end"])
    ]
    expected = case["updates_step_and_drop_fraction"]
    assert [t for t, _ in found] == [t for t, _ in expected]
    assert [f for _, f in found] == pytest.approx([f for _, f in expected], abs=1e-12)


@pytest.mark.parametrize("case", cases("torch.ao.pruning"))
def test_cubic_is_that_of_torch_pruning(case):
    p = case["params"]
    curve = schedules.cubic(1 - p["s0"], 1 - p["sf"])
    found = [1 - curve((t - p["t0"]) / (p["n"] * p["dt"])) for t in case["steps"]]
    assert found == pytest.approx(case["value"], abs=1e-9)


@pytest.mark.parametrize("case", cases("jaxpruner"))
def test_polynomials_are_those_of_jaxpruner(case):
    p = case["params"]
    curve = {2: schedules.quadratic, 3: schedules.cubic}[p["power"]](1.0, 1 - p["target"])
    # There a step's progress counts the step itself, and is 0 before the start.
    found = [
        1 - curve((t + 1 - p["start"]) / (p["end"] - p["start"])) if t >= p["start"] else 0.0
        for t in case["steps"]
    ]
    assert found == pytest.approx(case["sparsity"], abs=1e-6)


@pytest.mark.parametrize("case", cases("sparsimony"))
def test_a_cubic_with_a_late_start_reaches_its_target(case):
    """The negative example divides by the whole length and ends at 0.8984 instead of 0.9."""
    p = case["params"]
    begin = p["t_accel"] / p["t_end"]
    curve = schedules.cubic(1 - p["accelerated"], 1 - p["final"], begin=begin)
    assert 1 - curve(1.0) == 0.9
    assert max(v for v in case["value"] if v is not None) < 0.9


@settings(deadline=None)
@given(DENSITY, DENSITY, st.sampled_from(NAMES))
def test_every_schedule_begins_and_ends_to_the_bit(start, end, name):
    curve = schedules.schedule(name, start, end)
    assert curve(0.0) == start
    assert curve(1.0) == end
    assert curve(2.0) == end


@settings(deadline=None)
@given(DENSITY, DENSITY, st.sampled_from(NAMES), st.lists(st.floats(0, 1), min_size=2))
def test_every_named_schedule_is_monotone_and_in_range(start, end, name, progress):
    curve = schedules.schedule(name, start, end)
    values = [curve(p) for p in sorted(progress)]
    low, high = min(start, end), max(start, end)
    assert all(low - 1e-12 <= v <= high + 1e-12 for v in values)
    ordered = sorted(values, reverse=start > end)
    assert values == pytest.approx(ordered, abs=1e-12)


def test_quadratic_lies_between_linear_and_cubic():
    found = [schedules.schedule(n, 1.0, 0.0)(0.3) for n in ("cubic", "quadratic", "linear")]
    assert found == sorted(found)


def test_piecewise_joins_its_points():
    curve = piecewise([(0.0, 1.0), (0.5, 0.2), (1.0, 0.1)])
    assert [curve(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [1, 0.6, 0.2, 0.15, 0.1]
    )
    assert curve(1.0) == 0.1


def test_piecewise_steps_hold_the_last_value():
    curve = piecewise([(0.0, 1.0), (0.5, 0.2), (1.0, 0.1)], steps=True)
    assert [curve(p) for p in (0.0, 0.49, 0.5, 0.99, 1.0)] == [1.0, 1.0, 0.2, 0.2, 0.1]


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 2000))
def test_the_last_update_step_is_the_last(interval, end):
    due = [t for t in range(end + 100) if is_update_step(t, interval, end)]
    assert last_update_step(interval, end) == (due[-1] if due else 0)


def test_updates_never_end_without_an_end():
    assert is_update_step(100_000, 100, None)
    assert drop_fraction(0.3, 100_000, None) == 0.3


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(InputError, match=r"did you mean 'cubic'.*constant.*quadratic"):
        schedules.schedule("cubik", 1.0, 0.1)
    with pytest.raises(InputError, match="cosine, linear, constant"):
        drop_fraction(0.3, 1, 10, shape="step")


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.cubic(1.5, 0.1),
        lambda: schedules.cubic(1.0, -0.1),
        lambda: schedules.linear(1.0, 0.1, begin=0.5, finish=0.5),
        lambda: schedules.exponential(1.0, 0.0),
        lambda: piecewise([]),
        lambda: piecewise([(0.5, 1.0), (0.2, 0.5)]),
        lambda: piecewise([(0.0, 2.0)]),
        lambda: schedules.constant(0.1)(math.nan),
        lambda: schedules.schedule(3, 1.0, 0.1),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(InputError):
        make()


SHAPED = [schedules.linear, schedules.quadratic, schedules.cubic, schedules.cosine]


@pytest.mark.parametrize("make", [*SHAPED, schedules.exponential])
def test_a_span_holds_both_ends_and_moves_between_them(make):
    curve = make(1.0, 0.25, begin=0.2, finish=0.6)
    whole = make(1.0, 0.25)
    assert [curve(p) for p in (0.0, 0.2, 0.6, 0.61, 1.0)] == [1.0, 1.0, 0.25, 0.25, 0.25]
    for p in (0.1, 0.5, 0.75):
        assert curve(0.2 + 0.4 * p) == pytest.approx(whole(p), rel=1e-12)


def test_piecewise_written_out():
    points = [(0.25, 0.8), (0.5, 0.4), (0.5, 0.3), (1.0, 0.1)]
    lines = schedules.piecewise(points)
    assert [lines(p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.8, 0.8, 0.3, 0.1]
    assert lines(0.375) == pytest.approx(0.6)
    assert lines(0.75) == pytest.approx(0.2)
    held = schedules.piecewise(points, steps=True)
    assert [held(p) for p in (0.0, 0.3, 0.5, 0.99, 1.0)] == [0.8, 0.8, 0.3, 0.3, 0.1]


def test_points_as_text():
    made = schedules.schedule("0:1,0.5:0.2,1:0.1", 1.0, 0.1)
    assert made == schedules.piecewise([(0, 1), (0.5, 0.2), (1, 0.1)])
    assert schedules.schedule("0.5:0.2", 1.0, 0.1)(0.1) == 0.2
    schedules.check_schedule("0:1,1:0.5")
    schedules.check_schedule("cubic")


def test_drop_fractions_written_out():
    linear = [schedules.drop_fraction(0.4, t, 100, shape="linear", floor=0.1) for t in (0, 50, 100)]
    assert linear == pytest.approx([0.4, 0.25, 0.1])
    squared = schedules.drop_fraction(0.4, 50, 100, shape="linear", floor=0.1, power=2.0)
    assert squared == pytest.approx(0.1 + 0.3 * 0.25)
    assert schedules.drop_fraction(0.4, 500, 100, shape="linear") == 0.0
    assert schedules.drop_fraction(0.4, 500, 100, floor=0.1) == pytest.approx(0.1)
    assert schedules.drop_fraction(0.4, 50, 100, floor=0.2) == pytest.approx(0.3)
    assert schedules.drop_fraction(0.4, 50, 100, shape="constant") == 0.4
    assert schedules.drop_fraction(0.4, 50, None) == 0.4


def test_the_first_step_may_be_an_update_step():
    assert [t for t in range(5) if schedules.is_update_step(t, 1, 4)] == [1, 2, 3]
    assert [t for t in range(7) if schedules.is_update_step(t, 3, None)] == [3, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.linear(2.0, 0.5),
         "start: value is 2.0; allowed is at least 0, at most 1"),
        (lambda: schedules.linear(0.5, 2.0), "end: value is 2.0; allowed is at least 0, at most 1"),
        (lambda: schedules.linear(1.0, 0.5, begin=0.5, finish=1.5),
         "begin, finish: values are 0.5, 1.5; allowed is 0 ≤ begin < finish ≤ 1"),
        (lambda: schedules.exponential(0.0, 0.5),
         "start, end: values are 0.0, 0.5; allowed is above 0 for an exponential schedule"),
        (lambda: schedules.linear(1.0, 0.5)(float("nan")),
         "progress: value is nan; allowed is a number"),
        (lambda: schedules.piecewise([]),
         "points: none is given; allowed is at least one (progress, density)"),
        (lambda: schedules.piecewise([(0.5, 1.0), (1.5, 0.5)]),
         "points: progress 1.5 after 0.5; allowed is rising, from 0 to 1"),
        (lambda: schedules.piecewise([(0.5, 1.5)]),
         "points: value is 1.5; allowed is at least 0, at most 1"),
        (lambda: schedules.schedule(7, 1.0, 0.5),
         "schedule: value is 7; allowed is a name or a function progress → density"),
        (lambda: schedules.schedule("0:1,x:2", 1.0, 0.5),
         "schedule: 'x:2' is no point; allowed is progress:density, as in 0:1,0.5:0.2"),
        (lambda: schedules.check_schedule("0:1,x:2"),
         "schedule: 'x:2' is no point; allowed is progress:density, as in 0:1,0.5:0.2"),
        (lambda: schedules.drop_fraction(0.3, 1, 10, shape="square"),
         "unknown drop schedule 'square' (valid: cosine, linear, constant)"),
    ],
)  # fmt: skip
def test_errors_word_by_word(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message


def test_a_constant_is_one_density_throughout():
    assert [schedules.constant(0.1)(p) for p in (0.0, 0.3, 1.0)] == [0.1, 0.1, 0.1]
    assert [schedules.schedule("constant", 0.9, 0.1)(p) for p in (0.0, 1.0)] == [0.1, 0.1]


def test_a_function_is_a_schedule_as_it_is():
    falling = lambda progress: 1.0 - progress / 2  # noqa: E731
    assert schedules.schedule(falling, 1.0, 0.5) is falling
    with pytest.raises(InputError, match="schedule: value is 3; allowed is a name or a function"):
        schedules.schedule(3, 1.0, 0.5)
