import pytest
from hand_made import masks, workload
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.estimating.breakdown import GROUPINGS, breakdown, coverage, how_much, verdict
from hwsim import InputError, load_device

DEVICE = load_device("ideal")
STEP = workload()


def at(density, by="phase", **more):
    return breakdown(DEVICE, STEP, STEP.with_masks(masks(STEP, density)), by, **more)


@pytest.mark.parametrize("by", GROUPINGS)
def test_rows_add_up_to_the_price_of_the_whole_step(by):
    b = at(0.2, by)
    sparse = STEP.with_masks(masks(STEP, 0.2))
    assert b.total.dense.seconds == pytest.approx(DEVICE.estimate(STEP).seconds)
    assert b.total.sparse.seconds == pytest.approx(DEVICE.estimate(sparse).seconds)
    assert sum(r.sparse.seconds for r in b.rows) == pytest.approx(b.total.sparse.seconds)


@given(st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=25)
def test_on_ideal_the_gain_is_amdahls(density):
    given_masks = masks(STEP, density)
    real = coverage(STEP, given_masks, 1).density
    b = breakdown(DEVICE, STEP, STEP.with_masks(given_masks))
    # ideal prices whole FLOPs: each of nine products may lose one to rounding.
    assert b.total.speed_up == pytest.approx(b.amdahl(real), rel=1e-3)


def test_no_gain_passes_the_ceiling():
    b = at(0.01)
    assert b.total.speed_up < b.ceiling
    assert b.amdahl(0.0) == pytest.approx(b.ceiling)


def test_phases_come_in_the_order_of_a_step():
    assert [row.label for row in at(0.5).rows] == ["forward", "grad_input", "grad_weight", "update"]


def test_mask_updates_are_counted_in_their_share_of_steps():
    sparse = STEP.with_masks(masks(STEP, 0.2))
    grown = sparse.growth_step(dense_gradient=True)
    b = breakdown(DEVICE, STEP, sparse, growth=0.01, grown=grown)
    expected = 0.99 * DEVICE.estimate(sparse).seconds + 0.01 * DEVICE.estimate(grown).seconds
    assert b.total.sparse.seconds == pytest.approx(expected)


def test_coverage_counts_weights():
    covered = coverage(STEP, masks(STEP, 0.3), weights=10_000)
    assert covered.layers == 3
    assert covered.maskable == 3 * 48 * 32
    assert covered.share == pytest.approx(3 * 48 * 32 / 10_000)
    assert covered.density == pytest.approx(0.3, abs=0.03)


def test_an_unknown_grouping_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: phase, kind, layer"):
        at(0.5, "colour")


def test_the_verdict_says_faster_and_slower_and_what_cannot_be_masked():
    text = verdict([at(0.1)], 0.1)
    assert "density 10 %" in text
    assert "faster on ideal" in text
    assert "not maskable" in text
    assert how_much(0.25) == "4.0× slower"
    assert how_much(1.001) == "as fast"
