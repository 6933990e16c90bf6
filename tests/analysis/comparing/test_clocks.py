"""Net times of averaged courses, and what resampling the seeds says of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.comparing.clocks import Clocked, Contender, Course, MeanClock, SeedClock
from analysis.comparing.conclusion import DENSE, SPARSE
from analysis.stats import paired_ratio
from hwsim.net_time import time_to_target


def contender(name, kind, courses):
    return Contender(name, kind, dict(enumerate(courses)))


def noisy(name, kind, seconds, *, seeds=10, noise=0.3, floor=1.0, seed=0):
    """Losses fall from 4 to a floor, each validation off by chance."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0, seconds, 21)
    mean = floor + (4 - floor) * np.exp(-5 * at / seconds)
    return contender(
        name,
        kind,
        [Course(tuple(at), tuple(mean + noise * rng.normal(size=21))) for _ in range(seeds)],
    )


def test_the_time_of_one_seed_is_that_of_its_course():
    dense = contender("dense", DENSE, [Course((0.0, 5.0, 10.0), (4.0, 2.0, 1.0))])
    one = contender("SET", SPARSE, [Course((0.0, 1.0, 2.0), (4.0, 3.0, 1.0))])
    clock = MeanClock(dense, 0.5)  # to the loss 2
    assert clock.time(dense) == 5.0 and clock.time(one) == 1.5
    assert clock.beside(one, dense).speed_up.interval.point == pytest.approx(5 / 1.5)


def test_courses_are_averaged_before_the_loss_is_looked_for():
    dense = contender("dense", DENSE, [Course((0.0, 2.0), (4.0, 0.0))] * 2)
    # Means of the losses are 4, 2, 1: alone, the first run would never get to 2, the second at 1.
    courses = [Course((0.0, 2.0, 4.0), (4.0, 3.0, 2.1)), Course((0.0, 2.0, 4.0), (4.0, 1.0, -0.1))]
    one = contender("SET", SPARSE, courses)
    assert math.isnan(MeanClock(dense, 1.0).time(one))  # to 0, which one of the two gets below
    late = contender("dense", DENSE, [Course((0.0, 1.0, 2.0), (4.0, 2.0, 0.0))] * 2)
    found = MeanClock(late, 0.5)
    assert found.time(one) == 2.0
    assert found.beside(one, late).reached == 0.5


@given(st.data())
def test_a_time_is_that_of_the_averaged_course(data):
    points = data.draw(st.integers(2, 6))
    losses = st.lists(st.floats(0, 4), min_size=points, max_size=points)
    steps = st.lists(st.floats(0.1, 3), min_size=points, max_size=points)
    seeds = data.draw(st.integers(1, 4))
    courses = [
        Course(tuple(np.cumsum(data.draw(steps))), tuple(data.draw(losses))) for _ in range(seeds)
    ]
    dense = contender("dense", DENSE, [Course((0.0, 1.0), (4.0, 2.0))] * seeds)
    seconds, loss = (np.mean([getattr(c, n) for c in courses], 0) for n in ("seconds", "losses"))
    wanted = time_to_target(list(seconds), list(loss), 2.0)
    found = MeanClock(dense, 1.0).time(contender("SET", SPARSE, courses))
    # A mean that lies on the target to the last digit may fall on either side of it.
    if np.abs(loss - 2.0).min() > 1e-9:
        assert found == pytest.approx(wanted) if wanted is not None else math.isnan(found)


def test_a_lucky_validation_of_one_run_is_no_target():
    flat = Course((0.0, 1.0, 2.0, 3.0), (4.0, 2.0, 2.0, 2.0))
    lucky = Course((0.0, 1.0, 2.0, 3.0), (4.0, 0.0, 2.0, 2.0))
    dense = contender("dense", DENSE, [flat] * 9 + [lucky])
    one = contender("SET", SPARSE, [Course((0.0, 1.0), (4.0, 1.7))] * 10)
    found = MeanClock(dense).beside(one, dense)
    assert found.speed_up is not None and found.reached == 1.0


def test_equally_good_and_noisy_contenders_are_told_apart_as_rarely_as_the_level_says():
    wrong = 0
    for trial in range(100):
        dense = noisy("dense", DENSE, 10.0, seed=2 * trial)
        one = noisy("SET", SPARSE, 10.0, seed=2 * trial + 1)
        ratio = MeanClock(dense, 0.5).beside(one, dense).speed_up
        wrong += ratio is not None and not ratio.interval.low <= 1 <= ratio.interval.high
    assert wrong <= 11  # 5 are expected; 11 or fewer come in 99 of 100 such hundreds


def test_a_true_lead_is_found_within_its_interval():
    dense, one = (
        noisy("dense", DENSE, 10.0, noise=0.1),
        noisy("SET", SPARSE, 5.0, noise=0.1, seed=7),
    )
    ratio = MeanClock(dense, 0.5).beside(one, dense).speed_up
    assert ratio.interval.low < 2 < ratio.interval.high and ratio.p < 0.01


def test_where_some_resamplings_never_get_there_the_interval_reaches_0_and_nothing_is_shown():
    ends = [Course((0.0, 1.0), (4.0, 1.0))] * 7 + [Course((0.0, 1.0), (4.0, 5.0))] * 3
    dense = contender("dense", DENSE, [Course((0.0, 10.0), (4.0, 2.5))] * 10)
    found = MeanClock(dense, 1.0).beside(contender("SET", SPARSE, ends), dense)
    assert found.speed_up.interval.point > 5 and found.speed_up.interval.low == 0
    assert found.speed_up.p > 0.05 and found.reached == 0.7
    assert found.speed_up.detectable() == math.inf


def test_where_the_other_rarely_gets_there_it_is_not_called_faster():
    quick = [Course((0.0, 1.0), (4.0, 2.0))] * 6 + [Course((0.0, 1.0), (4.0, 2.9))] * 4
    dense = contender("dense", DENSE, [Course((0.0, 10.0), (4.0, 2.4))] * 10)
    slow = contender("SET", SPARSE, [Course((0.0, 5.0), (4.0, 2.0))] * 10)
    found = MeanClock(dense, 1.0).beside(slow, contender("narrower", SPARSE, quick))
    assert found.speed_up.interval.point < 1 and found.speed_up.interval.high == math.inf
    assert found.speed_up.p > 0.05


def test_a_run_that_diverged_keeps_its_contender_from_the_loss():
    dense = contender("dense", DENSE, [Course((0.0, 10.0), (4.0, 2.0))] * 5)
    gone = [Course((0.0, 1.0), (4.0, 1.0))] * 4 + [Course((0.0, 1.0), (4.0, math.nan))]
    clock = MeanClock(dense, 1.0)
    assert math.isnan(clock.time(contender("SET", SPARSE, gone)))
    assert clock.beside(contender("SET", SPARSE, gone), dense).reached == 0.8


def test_a_run_that_ended_early_has_no_loss_after_its_end():
    dense = contender("dense", DENSE, [Course((0.0, 10.0, 20.0), (4.0, 3.0, 2.0))] * 2)
    short = [Course((0.0, 1.0, 2.0), (4.0, 3.0, 2.0)), Course((0.0, 1.0), (4.0, 3.0))]
    assert MeanClock(dense, 0.5).time(contender("SET", SPARSE, short)) == 1.0
    assert math.isnan(MeanClock(dense, 1.0).time(contender("SET", SPARSE, short)))


def test_times_that_were_taken_are_compared_seed_by_seed_and_by_group():
    def clocked(name, kind, seconds, **more):
        return Clocked(name, kind, {}, seconds=dict(enumerate(seconds)), **more)

    one, other = (
        clocked("a", SPARSE, (1.0, 2.0, 4.0, 2.0)),
        clocked("b", DENSE, (2.0, 6.0, 4.0, 8.0)),
    )
    found = SeedClock().beside(one, other)
    alone = paired_ratio(other.seconds, one.seconds)
    assert found.speed_up.interval.point == pytest.approx(alone.interval.point)
    assert found.speed_up.p == pytest.approx(alone.p)
    assert SeedClock().time(one) == pytest.approx(2.0)
    paired = SeedClock({0: 0, 1: 0, 2: 1, 3: 1}).beside(one, other)
    assert paired.seeds == 2
    assert paired.speed_up.interval.point == pytest.approx(found.speed_up.interval.point)
    late = clocked("c", SPARSE, (1.0, 1.0, 1.0, 9.0), late=frozenset({3}))
    assert SeedClock().beside(late, other).reached == 0.75
