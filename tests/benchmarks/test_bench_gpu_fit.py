"""What the benchmark of the GPU fit holds its figures against: the limit that timings set."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from benchmarks.bench_gpu_fit import (
    again,
    check,
    figures_of,
    interval_of,
    limit_of,
    line,
    records_of,
    rows_of,
    thirty,
    timed_of,
)
from hwsim import InputError
from hwsim.measured.crosscheck import CrossCheck, Pair


def row(dtype, m, dense_us, sparse_us):
    return {
        "gpu": "A100", "dtype": dtype, "M": m, "N": 256, "K": 512, "dense_us": dense_us,
        "sparse24_us": sparse_us,
    }  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.floats(0.0, 0.5), st.floats(-1.0, 1.0))
def test_the_limit_divides_errors_by_the_root_of_two_and_lies_at_or_above_the_repeated_rank(e, tau):
    found = limit_of(np.array([e, 2 * e, 3 * e, tau]))
    assert found[:3] * math.sqrt(2.0) == pytest.approx([e, 2 * e, 3 * e])
    assert max(tau, 0.0) - 1e-9 <= found[3] <= 1.0


@pytest.mark.parametrize(("repeated", "limit"), [(1.0, 1.0), (0.0, 0.0), (-0.3, 0.0), (1 / 3, 0.5)])
def test_limits_of_the_rank_that_are_known_in_closed_form(repeated, limit):
    # τ = 1/3 is a correlation of sin 30° = 1/2, whose root sin 45° is τ = 1/2.
    assert limit_of(np.array([0.0, 0.0, 0.0, repeated]))[3] == pytest.approx(limit)


@pytest.mark.parametrize("scatter", [0.2, 0.6, 1.2])
def test_the_limit_is_what_the_truth_itself_would_be_found_to_miss(scatter):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20000)
    one, other = (truth + scatter * rng.normal(size=truth.size) for _ in range(2))
    repeated = np.mean(np.abs(one - other))
    tau = kendalltau(one, other)[0]
    found = limit_of(np.array([repeated, repeated, repeated, tau]))
    assert found[0] == pytest.approx(np.mean(np.abs(one - truth)), rel=0.02)
    assert found[3] == pytest.approx(kendalltau(one, truth)[0], abs=0.01)


def test_where_nothing_was_timed_twice_the_limit_is_a_dash():
    found = limit_of(np.array([0.1, math.nan, math.nan, math.nan]))
    assert found[0] == pytest.approx(0.1 / math.sqrt(2.0)) and np.isnan(found[1:]).all()
    assert line("limit", "bfloat16", found).count("–") == 2


def test_a_shape_timed_in_both_types_is_predicted_by_the_other_one():
    rows = [
        row("BF16", 64, 10.0, 8.0), row("FP16", 64, 11.0, 8.0), row("BF16", 128, 20.0, 10.0),
        row("FP16", 128, 20.0, None),
    ]  # fmt: skip
    found = again(timed_of(rows))
    assert {(u.kind, u.shape[0]) for u in found} == {("dense", 64), ("dense", 128), ("2:4", 64)}
    dense, sparse, speed_up, _ = figures_of("bfloat16", [check(found)])
    # 11 for 10, 20 for 20; 8 for 8; a gain of 11/8 for one of 10/8, at the one shape with both.
    assert dense == pytest.approx(0.05) and sparse == pytest.approx(0.0)
    assert speed_up == pytest.approx(0.1)


def test_a_bench_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NETTIME_REFERENCE", str(tmp_path))
    with pytest.raises(InputError, match="NETTIME_REFERENCE must name its folder"):
        rows_of("A100")


def test_thirty_records_are_of_fifteen_shapes_and_the_rest_shares_none_with_them():
    rows = [row("BF16", 64 * m, 10.0 * m, 8.0 * m) for m in range(1, 21)]
    rows += [row("BF16", 7, 5.0, None), row("FP16", 64, 1.0, 1.0)]
    seen, unseen = thirty(records_of(rows), np.random.default_rng(0))
    assert len(seen) == 30 and len({r.shape for r in seen}) == 15
    assert len(unseen) == 11 and not {r.shape for r in seen} & {r.shape for r in unseen}
    assert {r.dtype for r in seen + unseen} == {"bfloat16"}
    again_seen, _ = thirty(records_of(rows), np.random.default_rng(1))
    assert {r.shape for r in again_seen} != {r.shape for r in seen}


def test_too_few_shapes_for_thirty_records_are_counted():
    rows = [row("BF16", 64 * m, 10.0, 8.0) for m in range(1, 16)]
    with pytest.raises(InputError, match="15 shapes with both kernels; allowed is 16 or more"):
        thirty(records_of(rows), np.random.default_rng(0))


def test_an_interval_is_shown_relative_to_the_estimate_with_how_often_it_holds():
    (record,) = records_of([row("BF16", 64, 10.0, None)])
    inside, outside = Pair(record, 8e-6, 6e-6, 12e-6), Pair(record, 4e-6, 3e-6, 6e-6)
    assert interval_of(CrossCheck("", (inside, outside), {})) == pytest.approx([-0.25, 0.5, 0.5])
