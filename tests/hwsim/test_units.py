import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim import units

FINITE = st.floats(1e-12, 1e9)


@given(FINITE)
def test_digits_lose_less_than_half_a_percent(value):
    assert float(units.digits(value)) == pytest.approx(value, rel=0.0051)


@given(FINITE)
def test_digits_have_no_exponent(value):
    assert set(units.digits(value)) <= set("0123456789.")


@given(st.floats(1e-9, 3.5e6))
def test_seconds_stay_short_enough_for_a_column(value):
    assert len(units.seconds(value)) <= 8


@given(FINITE)
def test_seconds_keep_their_value(value):
    number, unit = units.seconds(value).split()
    size = {"h": 3600, "min": 60, "s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number) * size == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9996, "1.00 s"),
        (59.99, "1.00 min"),
        (0, "0 s"),
        (float("inf"), "∞"),
        (9.996e-4, "1.00 ms"),
    ],
)
def test_seconds_at_the_edges_of_a_unit(value, text):
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "<0.1 %"), (0.004, "0.4 %"), (0.9999, "99.9 %"), (1, "100 %")],
)
def test_a_small_share_is_not_called_none_nor_a_large_one_all(share, text):
    assert units.percent(share) == text


def test_an_interval_of_one_point_is_a_dash():
    assert units.interval(2.0, 2.0) == "–"
    assert units.interval(0.5e-3, 2e-3) == "0.500–2.00 ms"


def test_a_count_is_written_out_and_a_rate_has_its_prefix():
    assert units.quantity(512) == "512"
    assert units.quantity(1.979e15, "FLOP/s") == "1.98 PFLOP/s"
