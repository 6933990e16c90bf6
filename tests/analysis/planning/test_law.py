"""Scaling laws of sparse training: what is published, and fits that know their truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.planning.law import VIT_JFT, Law, Point, errors, fit, held_back
from hwsim import InputError

SHARED = Path(__file__).parents[3] / "shared" / "reference" / "sparse_scaling.json"
TRUTH = Law(
    "frantar", {"a": 1.3, "b": 0.8, "c": 2.0, "d": 0.4, "e": 0.3, "f": 0.8, "g": 4.5}
)  # fmt: skip


def grid(law, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for n in (1e6, 4e6, 16e6, 64e6):
        for s in (0.0, 0.5, 0.75, 0.875):
            for d in (2e8, 8e8, 16e8):
                point = Point(n * (1 - s), s, d)
                loss = law.loss(point) * np.exp(noise * rng.standard_normal())
                made.append(Point(point.nonzero, s, d, loss))
    return made


# Figures of google-research/jaxpruner, bigsparse (Apache-2.0): scale, sparsity, examples, loss.
PUBLISHED = [
    (0.25, 0.875, 225e6, 7.0584728265), (0.125, 0.75, 225e6, 7.316569568),
    (0.0625, 0.5, 225e6, 7.6811752001), (0.03125, 0.75, 225e6, 8.6024993798),
    (0.0078125, 0.0, 225e6, 9.7578700901), (0.015625, 0.0, 225e6, 8.8227766895),
    (1.0, 0.875, 225e6, 6.3339285887),
]  # fmt: skip


@pytest.mark.parametrize(("scale", "sparsity", "examples", "loss"), PUBLISHED)
def test_the_published_law_gives_the_published_losses(scale, sparsity, examples, loss):
    nonzero = scale * (1 - sparsity) * 12 * 12 * 768**2
    assert VIT_JFT.loss(Point(nonzero, sparsity, examples)) == pytest.approx(loss, rel=0.03)


@pytest.mark.skipif(not SHARED.is_file(), reason="reference data are not part of the project")
def test_a_fit_predicts_points_that_were_held_back_within_one_percent():
    rows = json.loads(SHARED.read_text())["vit"]
    points = [
        Point(r["scale"] * (1 - r["sparsity"]) * 12 * 12 * 768**2, r["sparsity"], r["examples"],
              r["validation_loss"])
        for r in rows
    ]  # fmt: skip
    assert np.abs(errors(VIT_JFT, points)).mean() < 0.0076
    assert np.abs(held_back(points, "frantar", folds=5)).mean() < 0.01


def test_a_fit_to_a_laws_own_points_predicts_points_of_other_sizes():
    law = fit(grid(TRUTH))
    others = [Point(2e6, 0.5, 4e8), Point(3e7, 0.0, 1e9), Point(5e5, 0.8, 3e8)]
    for point in others:
        assert law.loss(point) == pytest.approx(TRUTH.loss(point), rel=2e-3)
    assert law.error < 1e-3


def test_intervals_of_a_noisy_fit_hold_the_truth_and_narrow_with_less_noise():
    point = Point(4e6, 0.5, 8e8)
    widths = []
    for noise in (0.02, 0.002):
        law = fit(grid(TRUTH, noise), draws=30)
        low, high = law.interval(point)
        assert low * 0.995 <= TRUTH.loss(point) <= high * 1.005
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_the_average_form_reads_the_average_count():
    law = Law("average", {"a": 2.0, "d": 0.4, "e": 0.3, "f": 0.8, "g": 3.0})
    dense, pruned = Point(4e6, 0.0, 1e9), Point(1e6, 0.75, 1e9, average=4e6)
    assert law.loss(dense) == law.loss(pruned)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e5, 1e8), st.floats(0, 0.9), st.floats(1e7, 1e10), st.floats(1.1, 10))
def test_more_weights_and_more_examples_never_hurt(nonzero, sparsity, examples, more):
    here = TRUTH.loss(Point(nonzero, sparsity, examples))
    assert TRUTH.loss(Point(nonzero * more, sparsity, examples)) <= here
    assert TRUTH.loss(Point(nonzero, sparsity, examples * more)) <= here


def test_what_lies_beyond_the_points_is_named():
    assert VIT_JFT.beyond(Point(1e6, 0.5, 5e8)) == []
    assert VIT_JFT.beyond(Point(1e9, 0.99, 1e12)) == ["nonzero", "sparsity", "examples"]


@pytest.mark.parametrize(
    ("points", "form", "message"),
    [
        ([], "frantar", "points: 0 are given"),
        (grid(TRUTH), "chinchilla", "form"),
        ([Point(1e6, 0.0, 1e9 + i, 2.0) for i in range(9)], "frantar", "sizes"),
        ([Point(1e6 + i, 0.0, 1e9 + i, float("nan")) for i in range(9)], "frantar", "finite"),
    ],
)
def test_points_that_carry_no_law_are_refused(points, form, message):
    with pytest.raises(InputError, match=message):
        fit(points, form)
