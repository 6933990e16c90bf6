import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.gpu.matmul import features
from hwsim.gpu.misses import Misses

HALF, FLOAT8, OTHER_KIND = ("dense", "half"), ("dense", "float8"), ("2:4", "half")
SHAPES = np.array(
    [(m, n, k) for m in (64, 1024, 16384) for n, k in ((2048, 8192), (5120, 5120))], float
)
NO_TICKS = np.zeros(len(SHAPES))


def corrected(misses, key=HALF, keys=None):
    keys = keys or [HALF] * len(SHAPES)
    found = Misses(keys, SHAPES, NO_TICKS).corrections(misses)
    return features(SHAPES) @ found[key]


def test_what_is_whitened_is_independent_and_of_variance_one():
    misses = Misses([HALF] * len(SHAPES), SHAPES, NO_TICKS)
    roots = misses.whitened(np.eye(len(SHAPES)))
    covariance = np.linalg.inv(roots.T @ roots)
    assert np.allclose(misses.whitened(misses.whitened(covariance).T), np.eye(len(SHAPES)))
    assert (np.diag(covariance) > 0.04**2).all() and (covariance > 0).all()


def test_a_clock_with_ticks_makes_its_products_count_less():
    coarse = NO_TICKS.copy()
    coarse[0] = 0.3
    fine = Misses([HALF] * len(SHAPES), SHAPES, NO_TICKS)
    unit = np.eye(len(SHAPES))[0]
    found = Misses([HALF] * len(SHAPES), SHAPES, coarse).whitened(unit)
    assert np.linalg.norm(found) < 0.5 * np.linalg.norm(fine.whitened(unit))


@settings(deadline=None, max_examples=25)
@given(st.floats(-0.15, 0.15))
def test_an_equal_miss_of_all_is_mostly_but_never_wholly_corrected(miss):
    found = corrected(np.full(len(SHAPES), miss))
    assert (np.abs(found) <= abs(miss) + 1e-12).all()
    assert np.abs(found).mean() >= 0.5 * abs(miss) - 1e-12


def test_other_operands_and_the_other_kind_learn_less_from_a_miss():
    keys = [HALF, HALF, HALF, HALF, FLOAT8, OTHER_KIND]
    misses = np.array([0.1, 0.1, 0.1, 0.1, 0.0, 0.0])
    own, family, kind = (
        np.abs(corrected(misses, key, keys)).mean() for key in (HALF, FLOAT8, OTHER_KIND)
    )
    assert own > family > 0 and own > kind > 0


def test_one_product_far_off_bends_its_neighbours_little():
    misses = np.zeros(len(SHAPES))
    misses[2] = 0.1
    near = np.abs(np.delete(corrected(misses), 2)).max()
    misses[2] = 2.0
    assert np.abs(np.delete(corrected(misses), 2)).max() < 10 * near


def test_no_miss_asks_for_no_correction():
    assert corrected(np.zeros(len(SHAPES))) == pytest.approx(np.zeros(len(SHAPES)))
