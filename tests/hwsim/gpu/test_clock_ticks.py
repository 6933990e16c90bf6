"""Visible clock steps: found where they are, not found where they are not, shown as they round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.gpu.clock_ticks import Ticks, find_ticks


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 999), st.sampled_from([0.512e-6, 1.024e-6, 2.048e-6]), st.floats(0, 0.3))
def test_a_step_is_found_in_rounded_times_with_its_offset(seed, step_s, offset):
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, 16, 60)
    seconds = (counts + offset) * step_s * (1 + rng.normal(0, 1e-3, 60))
    found = find_ticks(seconds)
    # Coarser steps may fit by chance only if the counts do; the finest is always there.
    assert found.step_s >= step_s
    if found.step_s == step_s:
        assert found.offset_s == pytest.approx(offset * step_s, abs=0.05 * step_s)


def test_evenly_spread_times_have_no_step_in_nearly_all_cases():
    found = [
        find_ticks(np.random.default_rng(seed).uniform(3e-6, 30e-6, 100)).step_s
        for seed in range(300)
    ]
    assert np.mean(np.array(found) > 0) < 0.02


def test_few_or_long_times_say_nothing():
    assert find_ticks(np.arange(5, 15) * 2.048e-6) == Ticks()
    assert find_ticks(np.arange(100, 200) * 2.048e-6) == Ticks()


def test_a_well_known_time_is_shown_as_the_nearest_tick():
    ticks = Ticks(2e-6, 0.1e-6)
    shown = ticks.shown(np.array([3.8e-6, 4.4e-6, 7.9e-6]), spread=0.01)
    assert shown == pytest.approx([4.1e-6, 4.1e-6, 8.1e-6], rel=0.05)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-6, 1e-3), st.floats(0.01, 0.2))
def test_what_is_shown_is_within_half_a_step_and_long_times_are_left_alone(seconds, spread):
    ticks = Ticks(2.048e-6)
    shown = float(ticks.shown(np.array([seconds]), spread)[0])
    assert abs(shown - seconds) <= 0.62 * ticks.step_s  # the cut series overshoots a little
    if spread * seconds > ticks.step_s:
        assert shown == pytest.approx(seconds, rel=1e-6)


def test_a_clock_without_ticks_shows_the_time_and_adds_no_noise():
    seconds = np.array([1e-6, 2.5e-6])
    assert (Ticks().shown(seconds) == seconds).all()
    assert (Ticks().noise(seconds) == 0).all()
    assert Ticks(1e-6).noise(np.array([1e-6])) == pytest.approx(12**-0.5)
