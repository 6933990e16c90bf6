"""Ticks of a logarithmic axis of times: round, few, two at least."""

from hypothesis import given
from hypothesis import strategies as st

from analysis.reporting.plots import round_ticks


def test_a_short_axis_has_two_ticks_and_a_long_one_powers_of_ten():
    assert round_ticks(0.24, 0.52, 3) == [0.25, 0.4]
    assert round_ticks(0.02, 0.11, 6) == [0.02, 0.05, 0.1]
    assert round_ticks(0.003, 400, 6) == [0.01, 0.1, 1, 10, 100]


@given(low=st.floats(1e-9, 1e6), span=st.floats(1.5, 1e9), most=st.integers(2, 8))
def test_ticks_lie_in_sight_and_are_no_more_than_asked(low, span, most):
    ticks = round_ticks(low, low * span, most)
    assert ticks == sorted(set(ticks)) and 1 <= len(ticks) <= most
    assert all(low <= tick <= low * span for tick in ticks)
