"""The controls of a lottery ticket: its mask with other weights, other masks with its weights."""

import numpy as np
import pytest
import torch
from torch import nn

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms.lottery import Lottery


def pruned(trains: str, updates: int, choose_on: str = "host"):
    """Early weights, then masks and weights after some prunings of half of what is left."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8))
    early = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(
        model, optimizer, Lottery(share=0.5, trains=trains), density=0.25,
        distribution="uniform", update_interval=2, total_steps=20, end_step=20, seed=3,
        choose_on=choose_on,
    )  # fmt: skip
    x, y = torch.randn(32, 12), torch.randn(32, 8)
    for _ in range(2 * updates):
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
        sparsifier.step()
    weights = {n: p.detach().numpy() for n, p in model.named_parameters() if n.endswith("weight")}
    return early, {n: m.array for n, m in sparsifier.masks().items()}, weights


def test_before_the_last_pruning_controls_are_the_ticket():
    _, masks, weights = pruned("ticket", 1)
    for control in ("reinitialised", "random_mask"):
        _, others, values = pruned(control, 1)
        assert all(np.array_equal(masks[n], others[n]) for n in masks)
        assert all(np.array_equal(weights[n], values[n]) for n in weights)


def test_reinitialised_keeps_the_mask_and_shuffles_each_layers_early_weights():
    early, masks, weights = pruned("ticket", 2)
    _, others, values = pruned("reinitialised", 2)
    for name, mask in masks.items():
        assert np.array_equal(mask, others[name])
        start, value = early[f"{name}.weight"].numpy(), values[f"{name}.weight"]
        assert np.array_equal(weights[f"{name}.weight"], start * mask)
        assert np.isin(value[mask], start).all() and not value[~mask].any()
        assert (value[mask] != start[mask]).mean() > 0.8


def test_a_random_mask_has_as_many_weights_in_each_layer_with_their_early_values():
    early, masks, _ = pruned("ticket", 2)
    _, others, values = pruned("random_mask", 2)
    for name, mask in masks.items():
        assert others[name].sum() == mask.sum() and not np.array_equal(others[name], mask)
        start = early[f"{name}.weight"].numpy()
        assert np.array_equal(values[f"{name}.weight"], start * others[name])


@pytest.mark.parametrize("trains", ["reinitialised", "random_mask"])
def test_the_controls_stay_as_they_are_after_the_last_pruning(trains):
    _, masks, _ = pruned(trains, 2)
    _, later, _ = pruned(trains, 4)
    assert all(np.array_equal(masks[n], later[n]) for n in masks)


def test_another_control_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"trains.*'random'.*ticket, reinitialised, random_mask"):
        Lottery(trains="random")
