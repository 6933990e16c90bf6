"""Prices of a step: the table says what the device says, and the scaled step is the wider net's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwsim import InputError, Mask, load_device
from rl.runs.prices import GRID, lookup, prices, scaled, tabulate
from rl.runs.problems import Problem
from sparse_train.naming import layer_name
from sparse_train.workload import workload

SMALL = "bert-1x8"


def network(width):
    return nn.Sequential(
        nn.Linear(4 * width, 6 * width), nn.ReLU(), nn.Linear(6 * width, 3 * width)
    )


def step(width, rows):
    model = network(width)
    ranks = {layer_name(name): p.ndim for name, p in model.named_parameters()}
    return workload(model, torch.zeros(rows, 4 * width), optimizer="adamw"), ranks


def test_the_scaled_step_is_that_of_the_wider_network():
    small, ranks = step(1, 5)
    wide, _ = step(8, 15)
    grown = scaled(small, ranks, 8, 3)
    assert grown.layers == wide.layers
    by_kind = [{(op.kind, op.phase, op.name): op for op in w.ops} for w in (grown, wide)]
    assert set(by_kind[0]) == set(by_kind[1])
    for key, op in by_kind[0].items():
        other = by_kind[1][key]
        assert (op.m, op.n, op.k) == (other.m, other.n, other.k), key
        if op.kind in ("gemm", "optimizer"):
            assert op.dense_flops == other.dense_flops, key
            assert op.activation_bytes + op.weight_bytes == pytest.approx(
                other.activation_bytes + other.weight_bytes, rel=0.01
            ), key


@pytest.mark.parametrize("device", ["wafer", "zen4", "h100", "ideal"])
def test_the_table_adds_up_to_the_devices_own_estimate(device):
    machine = load_device(device)
    small, ranks = step(1, 64)
    grown = scaled(small, ranks, 64, 8)
    names = ("0", "2")
    table = tabulate(grown, names, machine, dense_gradient=True)
    dense = machine.estimate(grown).seconds
    assert table.dense_s == pytest.approx(dense, rel=1e-9)
    assert table.dense_flops == pytest.approx(grown.dense_flops)
    density = torch.tensor([0.3, 0.07])
    rng = torch.Generator().manual_seed(1)
    masks = {
        name: Mask((torch.rand(grown.layers[name], generator=rng) < d).numpy())
        for name, d in zip(names, density.tolist(), strict=True)
    }
    asked = machine.estimate(grown.with_masks(masks)).seconds
    found = table.fixed_s + float(table.seconds(density).sum())
    assert found == pytest.approx(asked, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=2), st.floats(1.0, 50.0))
def test_lookup_lies_between_grid_points(density, scale):
    table = torch.from_numpy(scale * GRID).expand(2, -1)
    found = lookup(table, torch.tensor(density))
    # Linear in log density lies above the convex curve, by little on so fine a grid.
    expected = scale * torch.tensor(density, dtype=torch.float64)
    assert (found >= expected * (1 - 1e-5)).all() and (found <= expected * 1.01).all()


def test_ideal_time_falls_with_density_and_updates_cost_more_with_a_dense_gradient(tiny):
    dense, random = (
        prices(Problem(SMALL, tiny), "ideal", dense_gradient=flag) for flag in (True, False)
    )
    assert (dense.layer_s[:, 1:] >= dense.layer_s[:, :-1]).all()
    assert (dense.update_s[:, 0] > random.update_s[:, 0]).all()
    assert dense.slope == pytest.approx(1.0, abs=0.25)


def test_scales_below_one_are_refused():
    small, ranks = step(1, 2)
    with pytest.raises(InputError, match="width, rows: values are 0, 1"):
        scaled(small, ranks, 0, 1)
