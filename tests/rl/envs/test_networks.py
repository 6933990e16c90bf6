"""Every way of training many networks keeps one contract, and both ways are one training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from hwsim import InputError
from rl.runs.problems import SETTINGS, Problem
from sparse_train.networks import NETWORKS, PROGRESS
from sparse_train.population.train import AdamW

WAYS = NETWORKS.names()
RIGL = {"drop_fraction": 0.2, "drop": "magnitude", "grow": "gradient"}


@pytest.fixture
def made(tiny, monkeypatch):
    """(way, size) → networks of a tiny problem."""

    def of(way, size=2):
        optimizer = AdamW(lr=0.01, warmup=2, weight_decay=0.1, density_power=1.0)
        task = f"tiny {way}"
        setting = dataclasses.replace(SETTINGS[tiny], trained=way, optimizer=optimizer)
        monkeypatch.setitem(SETTINGS, task, setting)
        networks = Problem("bert-1x8", task).networks(size)
        networks.begin(torch.arange(size), list(range(size)))
        return networks

    return of


def sparse(networks, density, rows=None, **changes):
    rows = torch.arange(networks.size) if rows is None else rows
    nnz = (networks.sizes * density).round().long().expand(len(rows), -1)
    networks.update(rows, nnz, **{**RIGL, **changes})
    return nnz


def test_networks_one_by_one_learn_what_they_learn_together(made):
    rows = torch.arange(2)
    together, alone = made("together"), made("one_by_one")
    assert (together.names, together.shapes) == (alone.names, alone.shapes)
    for density in (1.0, 0.5, 0.25):
        if density < 1:
            assert torch.equal(sparse(together, density), sparse(alone, density))
        for networks in (together, alone):
            networks.train(rows, 4)
        found = together.evaluate(rows), alone.evaluate(rows)
        for name in found[1]:
            torch.testing.assert_close(*(f[name].double() for f in found), atol=1e-4, rtol=1e-4)
        norms = (n.gradient_norms(rows).double() for n in (together, alone))
        torch.testing.assert_close(*norms, atol=1e-4, rtol=1e-2)
        seen = (n.activations.double() for n in (together, alone))
        torch.testing.assert_close(*seen, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_has_exactly_the_weights_asked_for_and_all_else_is_zero(made, way):
    networks = made(way)
    rows = torch.arange(2)
    networks.train(rows, 2)
    for density, how in ((0.4, {}), (0.6, {"grow": "random"}), (0.3, {"drop": "random"})):
        nnz = sparse(networks, density, **how)
        networks.train(rows, 2)
        assert torch.equal(networks.nnz, nnz)
        counts = networks.sizes.expand(2, -1)[..., None]
        assert (networks.gradient_masses(rows, counts) > 0).all()
        state = networks.take(1)
        if way == "one_by_one":
            model = state["run"]["model"]
            for name, wanted in zip(networks.names, nnz[1].tolist(), strict=True):
                weight, mask = model[f"{name}.weight"], model[f"{name}.weight_mask"]
                assert int(mask.sum()) == wanted
                assert (weight[~mask] == 0).all()
        else:
            assert int((state["mask"] == 0).sum()) == int((networks.sizes - nnz[1]).sum())
            assert (state["weights"][state["mask"] == 0] == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_network_put_elsewhere_goes_on_as_it_would_have(made, way):
    networks = made(way)
    one, other = torch.tensor([0]), torch.tensor([1])
    networks.train(one, 3)
    sparse(networks, 0.5, one)
    networks.train(one, 1)
    networks.put(1, 0, networks.take(0))
    for row in (one, other):
        sparse(networks, 0.3, row, grow="random")
        networks.train(row, 2)
    found = networks.evaluate(torch.arange(2))
    assert all(float(value[0]) == float(value[1]) for value in found.values())
    assert networks.nnz[0].tolist() == networks.nnz[1].tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_network_depends_on_its_seed_and_not_on_its_neighbours(made, way):
    pair, single = made(way, 2), made(way, 1)
    pair.train(torch.arange(2), 3)
    single.train(torch.tensor([0]), 3)
    found, alone = pair.evaluate(torch.arange(2)), single.evaluate(torch.tensor([0]))
    torch.testing.assert_close(found[PROGRESS][0], alone[PROGRESS][0], atol=1e-6, rtol=1e-5)
    assert float(found[PROGRESS][0]) != float(found[PROGRESS][1])


@pytest.mark.parametrize("way", WAYS)
def test_the_state_of_all_goes_on_to_the_bit(made, way):
    first, second = made(way), made(way)
    rows = torch.arange(2)
    first.train(rows, 2)
    sparse(first, 0.4)
    state = first.state_dict()
    second.load_state_dict(state, first.seeds)
    for networks in (first, second):
        networks.train(rows, 3)
    assert torch.equal(first.evaluate(rows)[PROGRESS], second.evaluate(rows)[PROGRESS])
    with pytest.raises(InputError, match=r"state of the (networks|population).*allowed is"):
        made(way, 1).load_state_dict(state, first.seeds)


@pytest.mark.parametrize("way", WAYS)
def test_unknown_criteria_list_the_valid_ones(made, way):
    networks = made(way, 1)
    for what in ("drop", "grow"):
        with pytest.raises(InputError, match=r"unknown .* criterion 'best'.*random"):
            sparse(networks, 0.5, **{what: "best"})


def test_one_by_one_a_loss_that_is_not_finite_stops_that_network_only(made):
    networks = made("one_by_one")
    rows = torch.arange(2)
    weights = next(networks._networks[0].run.model.parameters())
    nn.init.constant_(weights, float("nan"))
    networks.train(rows, 2)
    found = networks.evaluate(rows)[PROGRESS]
    assert torch.isnan(found).tolist() == [True, False]
    networks.begin(torch.tensor([0]), [5])
    assert torch.isfinite(networks.evaluate(rows)[PROGRESS]).all()


def test_one_by_one_the_random_state_of_torch_is_left_alone(made):
    before = torch.get_rng_state()
    networks = made("one_by_one")
    networks.train(torch.arange(2), 2)
    networks.put(0, 1, networks.take(1))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_way_lists_those_there_are():
    with pytest.raises(InputError, match=r"unknown way of training 'alone'.*one_by_one, together"):
        NETWORKS.get("alone")


def test_one_by_one_a_model_that_train_builds_in_another_way_is_refused(monkeypatch):
    setting = dataclasses.replace(SETTINGS["images"], trained="one_by_one")
    monkeypatch.setitem(SETTINGS, "digits one by one", setting)
    with pytest.raises(InputError, match=r"model: mlp is built .* allowed one by one"):
        Problem("mlp-1x8", "digits one by one").networks(1)
