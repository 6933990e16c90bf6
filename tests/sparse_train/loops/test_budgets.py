"""The total density is met, whatever the steps in which a pattern adds weights."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_train import sparsify
from sparse_train.patterns import projection
from tests.sparse_train.loops._loops import made, net, plain

torch.set_num_threads(1)


def stack(widths):
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


def test_a_tenth_of_a_transformer_is_a_tenth_under_constant_fan_in():
    model = stack([96, 200, 100, 100, 180, 90, 256, 96])
    for density in (0.1, 0.05, 0.013):
        sparsifier = sparsify(model, None, "static", density, "fan_in", layers="all")
        size = sum(m.size for m in sparsifier.masks().values())
        step = max(m.shape[0] for m in sparsifier.masks().values())
        assert abs(sum(m.nnz for m in sparsifier.masks().values()) - density * size) <= step / 2
        sparsifier.remove()


@pytest.mark.parametrize("pattern", ["block:16,16", "block:8,4", "neuron:0", "neuron:1"])
def test_a_tenth_of_a_transformer_is_a_tenth_in_tiles(pattern):
    model = stack([96, 208, 96, 96, 192, 80, 256, 96])
    for density in (0.1, 0.05, 0.013):
        sparsifier = sparsify(model, None, "static", density, pattern, layers="all")
        masks = list(sparsifier.masks().values())
        size = sum(m.size for m in masks)
        steps = [sparsifier.pattern.steps(m.shape, m.nnz) for m in masks]
        assert all(m.nnz == below for m, (below, _) in zip(masks, steps, strict=True))
        half = max(above - below for below, above in steps) / 2
        # Each layer has a tile at least.
        least = sum(sparsifier.pattern.steps(m.shape, 1)[0] for m in masks)
        assert abs(sum(m.nnz for m in masks) - max(density * size, least)) <= half
        sparsifier.remove()


@given(
    st.sampled_from(["block:3,2", "block:4,4", "neuron:0", "neuron:1"]),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.data(),
)
def test_steps_of_tiles_are_budgets_of_so_many_tiles(text, shape, data):
    pattern = projection(text)
    budget = data.draw(st.integers(1, shape[0] * shape[1]))
    below, above = pattern.steps(shape, budget)
    tiles, every = pattern.capacity(shape, budget), pattern.capacity(shape, shape[0] * shape[1])
    assert pattern.capacity(shape, below) == tiles
    assert pattern.capacity(shape, above) == min(tiles + 1, every)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(2, 40), min_size=3, max_size=7),
    st.floats(0.05, 0.95),
    st.sampled_from(["erk", "uniform", "er"]),
    st.sampled_from(["fan_in", "balanced:4,3"]),
)
def test_the_total_is_met_within_half_a_step_of_the_widest_layer(widths, density, share, pattern):
    sparsifier = sparsify(stack(widths), None, "static", density, pattern, share, layers="all")
    masks = sparsifier.masks().values()
    asked = density * sum(m.size for m in masks)
    # A layer that is full or has one weight a neuron only cannot take what is owed.
    free = [m for m in masks if m.shape[0] < m.nnz < m.size]
    if len(free) == len(masks):
        assert abs(sum(m.nnz for m in masks) - asked) <= max(m.shape[0] for m in masks) / 2 + 1
    assert all(m.satisfies(sparsifier.pattern.definition) and m.nnz for m in masks)


@pytest.mark.parametrize("pattern", ["2:4", "n_m:1,4", "transposable_n_m", "v_n_m:2,2,4"])
def test_a_pattern_of_fixed_density_takes_the_default_distribution_as_uniform(pattern):
    density = 0.25 if pattern == "n_m:1,4" else 0.5
    _model, _optimizer, sparsifier = made(
        model=stack([16, 32, 16, 8]), algorithm="rigl" if pattern == "2:4" else "static",
        density=density, pattern=pattern,
    )  # fmt: skip
    assert all(m.density == density for m in sparsifier.masks().values())


def test_srigl_keeps_the_density_that_was_asked_for_while_it_trains():
    run = made(algorithm="srigl", density=0.1, model=net())
    plain(*run, 12)
    size = sum(m.size for m in run[2].masks().values())
    assert run[2].density * size == pytest.approx(0.1 * size, abs=8)
