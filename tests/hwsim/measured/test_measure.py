import pytest

from hwsim import InputError
from hwsim.measured.timing import CacheFlush, TimedVariants, Timing, compare


class FakeClock:
    """Time that only passes when a variant says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def taking(self, *seconds):
        """A call that takes these times in turn, the last one for ever."""
        left = list(seconds)

        def call():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_the_time_of_a_call_is_found():
    clock = FakeClock()
    found = compare({"a": clock.taking(1e-4), "b": clock.taking(4e-4)}, clock=clock)
    assert found["a"].median_s == pytest.approx(1e-4)
    assert found["a"].rounds == 15
    assert found["a"].calls * 1e-4 >= 1.5e-3
    assert found.fastest.name == "a"
    assert found.speed_up("a", over="b") == pytest.approx((4, 4, 4))


def test_the_first_call_is_not_counted():
    clock = FakeClock()
    found = compare({"a": clock.taking(10.0, 2e-3)}, clock=clock)
    assert found["a"].quartiles_s == pytest.approx((2e-3, 2e-3))


def test_a_disturbed_comparison_is_repeated():
    clock = FakeClock()
    # Warm-up and calibration, then fifteen samples that jump, then quiet.
    call = clock.taking(0.01, 0.01, *[0.01, 0.05] * 7, 0.05, 0.01)
    found = compare({"a": call}, clock=clock)
    assert found.steady
    assert found["a"].median_s == pytest.approx(0.01)


def test_a_variant_that_stays_disturbed_says_so():
    clock = FakeClock()
    found = compare({"a": clock.taking(*[0.01, 0.05, 0.05] * 30)}, attempts=2, clock=clock)
    assert not found.steady


def test_what_runs_before_a_sample_is_not_timed():
    clock = FakeClock()
    found = compare({"a": clock.taking(1e-5)}, before=clock.taking(1.0), clock=clock)
    assert found["a"].calls == 1
    assert found["a"].median_s == pytest.approx(1e-5)


def test_the_order_is_shuffled_and_every_variant_is_in_every_round():
    order = []
    variants = {name: (lambda name=name: order.append(name)) for name in "abc"}
    clock = FakeClock()
    compare(variants, before=clock, clock=clock)
    rounds = [tuple(order[3:][i : i + 3]) for i in range(0, 45, 3)]
    assert all(set(r) == set("abc") for r in rounds)
    assert len(set(rounds)) > 1


def test_quartiles_of_a_ratio_are_taken_within_rounds():
    found = TimedVariants((Timing("a", (1.0, 2.0, 4.0), 1), Timing("b", (2.0, 4.0, 8.0), 1)))
    assert found.speed_up("a", over="b") == (2.0, 2.0, 2.0)


def test_a_flush_touches_three_times_the_cache():
    assert CacheFlush(1 << 12)._memory.nbytes == 3 << 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variants": {}}, "variants: none given"),
        ({"rounds": 0}, "rounds: value is 0"),
        ({"attempts": 1.5}, "attempts: value is 1.5"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        compare(**{"variants": {"a": int}, **arguments})


def test_an_unknown_variant_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: a"):
        compare({"a": int}, rounds=1)["b"]
