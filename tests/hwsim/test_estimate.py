"""Estimates: what a sum of prices keeps."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Estimate
from hwsim.estimate import BOUNDS

QUICK = settings(deadline=None, max_examples=40)
AMOUNTS = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def estimates(draw):
    low, seconds, high = sorted(draw(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS)))
    return Estimate(
        seconds, low, high, draw(AMOUNTS), draw(AMOUNTS), draw(AMOUNTS),
        draw(st.sampled_from(["dense", "sparse", "block"])),
        draw(st.sampled_from(BOUNDS[:-1])),
        verified=draw(st.booleans()),
    )  # fmt: skip


def of(seconds, kernel="dense", bound="compute", **more):
    return Estimate(
        seconds, seconds / 2, seconds * 2, seconds * 10, 100.0, 200.0, kernel, bound, **more
    )


def numbers(e):
    return e.seconds, e.low_s, e.high_s, e.cycles, e.bytes, e.flops


def same(one, two):
    assert numbers(one) == pytest.approx(numbers(two), rel=1e-12)
    assert one.by_bound == pytest.approx(two.by_bound, rel=1e-12)
    assert one.by_kernel == pytest.approx(two.by_kernel, rel=1e-12)
    assert one.verified == two.verified


@QUICK
@given(estimates(), estimates(), estimates())
def test_the_sum_is_associative_and_commutative(a, b, c):
    same((a + b) + c, a + (b + c))
    same(a + b, b + a)
    same(Estimate.total([a, b, c]), (a + b) + c)


@QUICK
@given(st.lists(estimates(), min_size=1, max_size=8))
def test_a_sum_adds_every_number_and_keeps_the_interval_in_order(parts):
    total = Estimate.total(parts)
    for name in ("seconds", "low_s", "high_s", "cycles", "bytes", "flops"):
        expected = math.fsum(getattr(p, name) for p in parts)
        assert getattr(total, name) == pytest.approx(expected, rel=1e-12)
    assert total.low_s <= total.seconds * (1 + 1e-12)
    assert total.seconds <= total.high_s * (1 + 1e-12)
    assert math.fsum(total.by_bound.values()) == pytest.approx(total.seconds, rel=1e-12)
    assert math.fsum(total.by_kernel.values()) == pytest.approx(total.seconds, rel=1e-12)
    assert total.verified == all(p.verified for p in parts)
    assert total.by_bound[total.bound] == max(total.by_bound.values())
    assert total.by_kernel[total.kernel] == max(total.by_kernel.values())


def test_the_sum_of_nothing_is_zero():
    assert Estimate.total([]) == Estimate.zero()
    assert numbers(Estimate.zero()) == (0.0,) * 6
    assert (Estimate.zero().kernel, Estimate.zero().bound) == ("none", "none")
    assert Estimate.zero().legal


@QUICK
@given(estimates())
def test_zero_is_neutral(e):
    assert numbers(e + Estimate.zero()) == numbers(e)
    assert numbers(Estimate.zero() + e) == numbers(e)
    assert (e + Estimate.zero()).kernel == e.kernel
    assert (e + Estimate.zero()).bound == e.bound


def test_a_sum_has_the_bound_and_the_kernel_with_most_seconds_together():
    parts = [of(3.0, "one", "compute"), of(2.0, "two", "memory"), of(2.0, "two", "memory")]
    total = Estimate.total(parts)
    assert (total.bound, total.kernel) == ("memory", "two")
    assert total.by_bound == {"compute": 3.0, "memory": 4.0}
    assert total.by_kernel == {"one": 3.0, "two": 4.0}
    # Shares outlive the grouping: 3 + 2 of compute against 4 of memory.
    assert (total + of(2.0, "three", "compute")).bound == "compute"


def test_equal_shares_are_named_in_the_order_of_the_alphabet():
    assert (of(1.0, bound="memory") + of(1.0, bound="compute")).bound == "compute"
    assert (of(1.0, "b") + of(1.0, "a")).kernel == "a"


@QUICK
@given(estimates(), st.integers(0, 1000))
def test_scaling_is_repeated_addition(e, times):
    scaled = e.scaled(times)
    assert numbers(scaled) == pytest.approx([x * times for x in numbers(e)], rel=1e-12)
    assert scaled.by_bound == pytest.approx({e.bound: e.seconds * times}, rel=1e-12)
    assert (scaled.kernel, scaled.bound) == (e.kernel, e.bound)
    assert scaled.verified == e.verified
    if times in range(1, 50):
        same(scaled, Estimate.total([e] * times))


def test_scaling_a_sum_scales_its_shares():
    scaled = (of(1.0, bound="memory") + of(2.0, bound="port")).scaled(3)
    assert scaled.by_bound == {"memory": 3.0, "port": 6.0}
    assert scaled.by_kernel == {"dense": 9.0}


def test_a_kernel_that_cannot_run_takes_for_ever_and_says_why():
    never = Estimate.illegal("block", "rows are no multiple of 4")
    assert not never.legal
    assert never.seconds == never.low_s == never.high_s == math.inf
    assert (never.kernel, never.reason) == ("block", "rows are no multiple of 4")
    assert never.bytes == never.flops == 0
    assert of(1e300).legal
    assert never.seconds > of(1e300).seconds


def test_an_unverified_part_makes_the_sum_unverified():
    assert (of(1.0) + of(2.0)).verified
    assert not (of(1.0) + of(2.0, verified=False)).verified
    assert not of(1.0, verified=False).scaled(2).verified


def test_an_estimate_cannot_be_changed():
    with pytest.raises(AttributeError):
        of(1.0).seconds = 2.0


def test_only_estimates_add_to_an_estimate():
    with pytest.raises(TypeError):
        of(1.0) + 1.0


def test_the_neutral_bound_never_hides_another():
    for one, two in pairwise([*BOUNDS, "compute"]):
        named = {one, two} - {"none"}
        assert (of(0.0, bound=one) + of(0.0, bound=two)).bound in named
