"""A grid of estimates says what single estimates say."""

import pytest
import torch

from analysis.estimating import subject, what_if
from analysis.estimating.pricing import Setting, price
from hwsim import load_device

SETTING = Setting("unstructured", "uniform", 0, "static", 0)
DEVICES = [load_device("ideal"), load_device("zen3")]


def made(batch, width=64):
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Linear(width, width))
    return subject.of("mine", model, torch.zeros(batch, width))


@pytest.fixture(scope="module")
def grid():
    return what_if.grid(
        {4: made(4), 16: made(16)}, DEVICES, SETTING,
        patterns=("unstructured", "2:4"), densities=(0.1, 0.5),
    )  # fmt: skip


def test_a_cell_is_what_one_estimate_says(grid):
    alone, _ = price(made(16), DEVICES, 0.1, SETTING)
    for cell, single in zip(grid.sparse[16, "unstructured", 0.1], alone, strict=True):
        assert cell == what_if.Cell.of(single.total.sparse)
    for cell, single in zip(grid.dense[16], alone, strict=True):
        assert cell == what_if.Cell.of(single.total.dense)


def test_a_larger_batch_takes_longer(grid):
    assert grid.batches == (4, 16)
    for small, large in zip(grid.dense[4], grid.dense[16], strict=True):
        assert small.seconds < large.seconds


def test_a_pattern_stands_at_densities_that_it_can_have(grid):
    assert grid.of_pattern("unstructured") == (0.1, 0.5)
    assert {grid.densities["2:4", d] for d in grid.of_pattern("2:4")} == {0.5}


def test_a_pattern_of_one_density_is_asked_at_that():
    found = what_if.grid({4: made(4)}, DEVICES, SETTING, patterns=("v_n_m:16,2,8",))
    assert dict(found.densities) == {("v_n_m:16,2,8", 0.25): 0.25}
