import numpy as np
import pytest
from hand_made import contender, contenders
from hypothesis import given
from hypothesis import strategies as st

from analysis.reporting import summary
from analysis.reporting.contenders import (
    ReportedRun,
    Seconds,
    common_loss,
    compare,
    time_to,
    verdicts,
)
from analysis.reporting.report import report
from hwsim import InputError


def run(losses, seconds, name="a", family="dense"):
    times = np.array(seconds, dtype=float)
    return ReportedRun(
        name, family, 1.0, np.arange(len(losses)), np.array(losses),
        {"ideal": Seconds(times, times * 0.9, times * 1.1)},
    )  # fmt: skip


def test_between_evaluations_the_time_is_interpolated_and_the_interval_spans_them():
    reached = time_to(run([3.0, 2.0, 1.0], [0, 10, 20]), "ideal", 1.5)
    assert reached is not None
    assert reached.seconds == pytest.approx(15.0)
    assert (reached.low, reached.high) == pytest.approx((9.0, 22.0))


def test_a_loss_that_is_never_reached_has_no_time():
    assert time_to(run([3.0, 2.0], [0, 10]), "ideal", 1.9) is None


def test_a_loss_that_rises_again_does_not_undo_what_was_reached():
    curve = run([3.0, 1.0, 2.5, 0.5], [0, 10, 20, 30])
    reached = time_to(curve, "ideal", 1.0)
    assert reached is not None and reached.seconds == pytest.approx(10.0)


@given(st.lists(st.floats(0.1, 5.0), min_size=2, max_size=12), st.floats(0.1, 5.0))
def test_the_time_lies_in_its_interval(losses, target):
    reached = time_to(run(losses, np.arange(len(losses)) * 10.0), "ideal", target)
    if min(losses) > target:
        assert reached is None
    else:
        assert reached is not None
        assert reached.low <= reached.seconds <= reached.high


@given(st.lists(st.floats(0.1, 5.0), min_size=2, max_size=12), st.floats(0.1, 4.0), st.floats(0, 1))
def test_a_lower_loss_is_never_reached_earlier(losses, target, more):
    curve = run(losses, np.arange(len(losses)) * 10.0)
    low, high = time_to(curve, "ideal", target), time_to(curve, "ideal", target + more)
    if low is not None:
        assert high is not None
        assert high.seconds <= low.seconds + 1e-9


def test_every_contender_reaches_the_common_loss():
    runs = contenders()
    loss = common_loss(runs)
    assert all(time_to(c, "ideal", loss) for c in runs)
    assert compare(runs, "ideal", loss).order[-1] == "dense"


def test_the_verdict_names_the_winner_and_its_rival():
    runs = contenders()
    text = verdicts(runs, common_loss(runs))[0]
    assert text.startswith("On ideal RigL 10 % reaches loss")
    assert "the narrower dense model" in text


def test_the_verdict_says_so_where_sparse_loses():
    runs = [contender("dense", "dense", 1e-4), contender("RigL", "rigl", 1e-3, density=0.1)]
    text = verdicts(runs, common_loss(runs))[0]
    assert "the dense model reaches" in text
    assert text.endswith("Sparse does not win here.")


def test_the_verdict_calls_overlapping_intervals_too_close():
    runs = [contender("dense", "dense", 1e-3), contender("RigL", "rigl", 0.99e-3, density=0.1)]
    assert "too close to call" in verdicts(runs, common_loss(runs))[0]


def test_an_unknown_device_is_an_input_error():
    with pytest.raises(InputError, match="h100"):
        time_to(contenders()[0], "h100", 1.0)


@pytest.mark.parametrize("gone", [[3.0, np.nan, np.nan], [3.0, np.inf], [3.0, 4.0], [np.nan]])
def test_a_run_that_diverged_stops_no_report_and_sets_no_target(gone):
    times = list(range(0, 10 * len(gone), 10))
    runs = [run([3.0, 2.0, 1.0], [0, 10, 20]), run(gone, times, "b", "rigl")]
    assert common_loss(runs) == 1.0
    assert compare(runs, "ideal", 1.0).times["b"] is None
    lines = verdicts(runs, common_loss(runs))
    assert lines and "nan" not in " ".join(lines)
    assert "0 ms" not in report(runs, "t")


def test_where_no_run_learns_anything_the_report_says_so():
    runs = [run([3.0, 3.5], [0, 10]), run([3.1, 4.0], [0, 10], "b", "rigl")]
    assert all("nothing was learnt" in line for line in verdicts(runs, common_loss(runs)))
    assert summary.table(runs, common_loss(runs), "the loss").row_count == 2
    report(runs, "t")
