import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.comparing.clocks import Contender, Course, MeanClock
from analysis.comparing.conclusion import (
    DENSE,
    NARROWER,
    SPARSE,
    Verdict,
    conclude,
    corrected,
)

SEEDS = range(10)


def runs(name, kind, seconds, *, seeds=SEEDS, best=1.0, **facts):
    """Loss falls in a straight line from 4 to `best` in `seconds`, a little otherwise by seed."""
    courses = {
        s: Course((0.0, seconds * (1 + 0.01 * (s % 3)) / 2, seconds * (1 + 0.01 * (s % 3))),
                  (4.0, (4.0 + best) / 2, best))
        for s in seeds
    }  # fmt: skip
    return Contender(name, kind, courses, **facts)


def concluded(dense, *others):
    """To the loss 2.5, dense's at half of its run."""
    (found,) = corrected(
        [conclude([dense, *others], "ideal", MeanClock(dense, 0.5), "the loss 2.5")]
    )
    return found


def test_a_sparse_contender_faster_than_dense_and_narrower_is_said_to_be_so_with_ten_seeds():
    found = concluded(
        runs("dense", DENSE, 8.0), runs("narrower", NARROWER, 4.0), runs("RigL", SPARSE, 2.0)
    )
    assert found.winner == "RigL" and found.narrower == "narrower"
    assert found.over_dense["RigL"].verdict == Verdict.FASTER
    assert found.over_dense["RigL"].speed_up.interval.point == pytest.approx(4.0)
    assert found.over_narrower["RigL"].speed_up.interval.point == pytest.approx(2.0)
    assert "4.00" in found.sentence and "2.00" in found.sentence


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [(1, Verdict.FEW), (4, Verdict.FEW), (5, Verdict.SEEN), (10, Verdict.FASTER)],
)
def test_nothing_is_said_of_fewer_than_five_seeds_nor_claimed_with_fewer_than_ten(seeds, verdict):
    own = range(seeds)
    found = concluded(runs("dense", DENSE, 8.0, seeds=own), runs("SET", SPARSE, 2.0, seeds=own))
    assert found.over_dense["SET"].verdict == verdict


def test_who_does_not_reach_the_loss_wins_nothing():
    never = runs("SET", SPARSE, 1.0, best=2.6)
    found = concluded(runs("dense", DENSE, 8.0), never)
    assert found.over_dense["SET"].verdict == Verdict.NOT_REACHED
    assert found.over_dense["SET"].reached == 0 and found.winner == ""
    assert math.isnan(found.times_s["SET"]) and "no sparse contender" in found.sentence


def test_a_narrower_model_that_does_not_get_there_is_not_the_best_one():
    slow, quick = runs("wide", NARROWER, 6.0), runs("thin", NARROWER, 1.0, best=2.6)
    found = concluded(runs("dense", DENSE, 8.0), slow, quick, runs("RigL", SPARSE, 4.0))
    assert found.narrower == "wide"


def test_a_rival_that_never_gets_there_counts_with_its_whole_run():
    rigl = runs("RigL", SPARSE, 6.0, best=3.0, known=True)
    found = concluded(runs("dense", DENSE, 8.0), rigl, runs("SET", SPARSE, 2.0))
    beside = found.over_known["SET"]
    assert beside.at_least and beside.text.startswith("≥")
    assert beside.speed_up.interval.point == pytest.approx(6.0 / 1.0, rel=0.02)


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [({"learnt": False}, Verdict.NOTHING_LEARNT), ({"tuned": False}, Verdict.UNTUNED)],
)
def test_what_learnt_nothing_or_was_not_tuned_is_said_nothing_of(facts, verdict):
    found = concluded(runs("dense", DENSE, 8.0), runs("RigL", SPARSE, 2.0, **facts))
    assert found.over_dense["RigL"].verdict == verdict


def test_a_run_that_diverged_neither_wins_nor_stops_the_others():
    gone = Contender("SET", SPARSE, {s: Course((0.0, 1.0), (4.0, math.nan)) for s in SEEDS})
    found = concluded(runs("dense", DENSE, 8.0), gone, runs("RigL", SPARSE, 2.0))
    assert found.winner == "RigL" and found.over_dense["SET"].reached == 0


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_speed_up_is_the_inverse_seen_from_the_other_side(a, b):
    one, other = runs("dense", DENSE, a), runs("SET", SPARSE, b)
    there = concluded(one, other).over_dense["SET"].speed_up.interval.point
    back = concluded(runs("dense", DENSE, b), runs("SET", SPARSE, a)).over_dense["SET"]
    assert there * back.speed_up.interval.point == pytest.approx(1.0)


@given(st.lists(st.floats(1.05, 3.0), min_size=2, max_size=6))
def test_more_questions_never_make_an_answer_surer(times):
    dense = runs("dense", DENSE, 8.0)
    contenders = [runs(f"c{i}", SPARSE, t) for i, t in enumerate(times)]
    alone = concluded(dense, contenders[0]).over_dense["c0"].p
    assert concluded(dense, *contenders).over_dense["c0"].p >= alone


def test_a_new_idea_is_held_against_rigl_and_a_slower_one_is_not_called_faster():
    dense, rigl = runs("dense", DENSE, 8.0), runs("RigL", SPARSE, 4.0, known=True)
    found = concluded(dense, rigl, runs("group", SPARSE, 2.0), runs("slow", SPARSE, 6.0))
    assert found.over_known["group"].verdict == Verdict.FASTER
    assert found.over_known["slow"].verdict == Verdict.SLOWER
    assert "RigL" not in found.over_known and "group is 2.00" in found.sentence
    alone = concluded(dense, rigl, runs("slow", SPARSE, 6.0))
    assert "None is shown faster than RigL" in alone.sentence
