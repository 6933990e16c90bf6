"""Net time: steps times prices, and the time to a loss."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Estimate, InputError, Mask, Workload, gemm, load_device, net_time, time_to_target
from hwsim.net_time import cumulative, times_to_targets

QUICK = settings(deadline=None, max_examples=40)
NO_NUMBER = "^losses: a NaN among seconds, losses or target; allowed are numbers$"
NAMES = ("seconds", "low_s", "high_s", "cycles", "bytes", "flops")


def workload(size, mask=None):
    step = Workload((gemm(size, 8, 8), gemm(size, 8, 8, phase="grad_weight")))
    return step if mask is None else step.with_masks({"gemm": mask})


def machine():
    """One on which a flop takes a second."""
    return load_device("ideal", peak_flops=1.0, clock_hz=1.0)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1000)), max_size=6))
def test_net_time_is_the_sum_of_steps_times_prices(sizes):
    device = machine()
    total = net_time(device, [(workload(size), steps) for size, steps in sizes])
    expected = sum(steps * 2 * 2 * size * 64 for size, steps in sizes)
    assert total.seconds == pytest.approx(expected, rel=1e-12)
    assert total.flops == pytest.approx(expected, rel=1e-12)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), min_size=1, max_size=4))
def test_on_a_device_with_an_interval_every_number_is_summed(sizes):
    device = load_device("systolic")
    pairs = [(workload(size), steps) for size, steps in sizes]
    total = net_time(device, pairs)
    for name in NAMES:
        expected = sum(steps * getattr(device.estimate(w), name) for w, steps in pairs)
        assert getattr(total, name) == pytest.approx(expected, rel=1e-12)


def test_no_steps_cost_nothing():
    assert net_time(machine(), []) == Estimate.zero()
    assert net_time(machine(), [(workload(3), 0)]) == Estimate.zero()
    one = net_time(machine(), [(workload(3), 2)])
    assert net_time(machine(), [(workload(5), 0), (workload(3), 2)]) == one


def test_numpys_integers_are_steps():
    assert net_time(machine(), [(workload(3), np.int64(2))]).seconds == 2 * 2 * 2 * 3 * 64


@pytest.mark.parametrize("steps", [-1, 1.5, True, "3", None, float("nan")], ids=repr)
def test_steps_are_integers_of_at_least_zero(steps):
    with pytest.raises(InputError, match=r"steps: value is .*an integer of at least 0"):
        net_time(machine(), [(workload(3), steps)])


def test_a_run_cut_in_two_takes_the_same():
    whole = net_time(machine(), [(workload(3), 10), (workload(4), 5)])
    cut = net_time(machine(), [(workload(3), 4), (workload(3), 6), (workload(4), 5)])
    assert whole.seconds == cut.seconds


def test_equal_workloads_are_priced_once(monkeypatch):
    device = machine()
    asked = []
    real = type(device).estimate

    def counting(self, item):
        if isinstance(item, Workload):
            asked.append(item.digest)
        return real(self, item)

    monkeypatch.setattr(type(device), "estimate", counting)
    rng = np.random.default_rng(0)
    arrays = [rng.random((8, 8)) < 0.5 for _ in range(2)]
    pairs = [(workload(3, Mask(a.copy())), 7) for _ in range(5) for a in arrays]
    total = net_time(device, pairs)
    assert len(asked) == len(set(asked)) == 2
    net_time(device, pairs)
    assert len(asked) == 2
    assert total.flops == 5 * 7 * sum(2 * 2 * 3 * int(a.sum()) for a in arrays)


def test_prices_are_kept_by_device():
    fast, slow = machine(), load_device("ideal", peak_flops=0.5, clock_hz=1.0)
    pairs = [(workload(3), 1)]
    assert net_time(slow, pairs).seconds == 2 * net_time(fast, pairs).seconds
    assert net_time(slow, pairs).seconds == 2 * net_time(fast, pairs).seconds


PAIRS = [(1, 10), (2, 0), (3, 5)]  # (tokens, steps); a token costs 256 seconds


def test_cumulative_seconds_are_those_of_the_steps_done():
    pairs = [(workload(size), steps) for size, steps in PAIRS]
    at = [0, 1, 10, 11, 15]
    seconds, low, high = cumulative(machine(), pairs, at)
    assert list(seconds) == [256 * x for x in (0, 1, 10, 13, 25)]
    np.testing.assert_array_equal(low, seconds)
    np.testing.assert_array_equal(high, seconds)


@QUICK
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 50)), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_cumulative_is_the_net_time_of_the_part_that_is_done(sizes, share):
    device = load_device("systolic")
    done = int(share * sum(steps for _, steps in sizes))
    part, left = [], done
    for size, steps in sizes:
        part.append((workload(size), min(steps, left)))
        left -= part[-1][1]
    expected = net_time(device, part)
    whole = [(workload(size), steps) for size, steps in sizes]
    (seconds,), (low,), (high,) = cumulative(device, whole, [done])
    assert seconds == pytest.approx(expected.seconds, rel=1e-9)
    assert low == pytest.approx(expected.low_s, rel=1e-9)
    assert high == pytest.approx(expected.high_s, rel=1e-9)


@pytest.mark.parametrize("at", [[-1], [16], [0, 16]], ids=str)
def test_cumulative_stays_within_the_run(at):
    pairs = [(workload(size), steps) for size, steps in PAIRS]
    with pytest.raises(InputError, match="allowed 0 to 15"):
        cumulative(machine(), pairs, at)


@pytest.mark.parametrize(
    ("seconds", "losses", "target", "expected"),
    [
        ([0, 10], [3, 1], 2, 5.0),
        ([0, 10, 20], [3, 1, 0], 1, 10.0),
        ([0, 10, 20], [4, 2, 1], 1.5, 15.0),
        ([5, 10], [1, 0], 2, 5.0),
        ([5, 10], [2, 3], 2, 5.0),
        ([0, 10], [3, 1], 0.5, None),
        ([0], [3], 2, None),
        ([7], [1], 2, 7.0),
        # Later rises change nothing; rises before the target do not either.
        ([0, 10, 20], [3, 1, 5], 2, 5.0),
        ([0, 10, 20, 30], [3, 5, 1, 2], 2, 17.5),
        ([0, 10, 10, 20], [3, 2.5, 1, 0], 2, 10.0),
    ],
    ids=str,
)
def test_the_time_to_a_target_is_where_the_straight_line_first_meets_it(
    seconds, losses, target, expected
):
    assert time_to_target(seconds, losses, target) == expected


@QUICK
@given(st.lists(st.floats(0, 10), min_size=1, max_size=10), st.floats(0, 10), st.floats(0, 10))
def test_a_harder_target_is_never_reached_earlier(losses, one, two):
    seconds = list(range(len(losses)))
    easy = time_to_target(seconds, losses, max(one, two))
    hard = time_to_target(seconds, losses, min(one, two))
    assert hard is None or (easy is not None and easy <= hard + 1e-9)
    assert (easy is None) == (min(losses) > max(one, two))


NAN = float("nan")


@pytest.mark.parametrize(
    ("seconds", "losses", "target"),
    [([0, 1], [3, NAN], 2), ([0, NAN], [3, 1], 2), ([0, 1], [3, 1], NAN)],
    ids=str,
)
def test_what_is_no_number_is_refused(seconds, losses, target):
    with pytest.raises(InputError, match=NO_NUMBER):
        time_to_target(seconds, losses, target)


def test_time_does_not_run_backwards():
    with pytest.raises(InputError, match=r"^seconds: they fall; allowed is a rising sequence$"):
        time_to_target([0, 2, 1], [3, 2, 1], 2)


@pytest.mark.parametrize(
    ("seconds", "losses"), [([0, 1], [3]), ([], []), ([[0, 1]], [[3, 1]])], ids=str
)
def test_every_evaluation_has_one_time_and_one_loss(seconds, losses):
    with pytest.raises(InputError, match=r"losses: shape is .*allowed is that of seconds"):
        time_to_target(seconds, losses, 2)


@given(st.data())
def test_many_courses_at_once_take_what_each_takes_alone(data):
    many, points = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))

    def courses(low, high):
        row = st.lists(st.floats(low, high), min_size=points, max_size=points)
        return np.array(data.draw(st.lists(row, min_size=many, max_size=many)))

    seconds, losses = courses(0.0, 9.0).cumsum(axis=1), courses(0.0, 4.0)
    targets = np.array(data.draw(st.lists(st.floats(-1.0, 5.0), min_size=many, max_size=many)))
    alone = [
        time_to_target(list(s), list(y), float(t))
        for s, y, t in zip(seconds, losses, targets, strict=True)
    ]
    found = times_to_targets(seconds, losses, targets)
    assert found.tolist() == [math.inf if one is None else one for one in alone]


def test_courses_reach_their_own_targets_or_none():
    seconds, losses = np.array([[1.0, 3.0]] * 3), np.array([[4.0, 2.0], [4.0, 3.5], [0.5, 0.4]])
    assert times_to_targets(seconds, losses, np.full(3, 3.0)).tolist() == [2.0, math.inf, 1.0]
