"""Layers without a gradient rest; the others go on."""

import pytest
import torch
from torch import nn

from tests.sparse_train.loops._loops import loss_of, made, net

torch.set_num_threads(1)


def frozen_run(algorithm):
    model, optimizer, sparsifier = made(algorithm=algorithm, update_interval=2)
    model[2].weight.requires_grad_(False)
    before = sparsifier.masks()["2"], model[2].weight.clone()
    for step in range(8):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        sparsifier.step()
    return model, sparsifier, before


@pytest.mark.parametrize("algorithm", ["set", "rigl", "srigl", "snfs"])
def test_a_frozen_layer_rests_while_others_move(algorithm):
    model, sparsifier, before = frozen_run(algorithm)
    assert sparsifier.masks()["2"] == before[0] and torch.equal(model[2].weight, before[1])
    assert sparsifier.version >= 2


class Experts(nn.Module):
    """Four experts in one tensor; only those that are asked are used."""

    def __init__(self):
        super().__init__()
        self.num_experts, self.hidden_dim = 4, 8
        self.up = nn.Parameter(torch.randn(4, 12, 8))
        self.down = nn.Parameter(torch.randn(4, 8, 12))
        self.head = nn.Linear(8, 3)

    def forward(self, x, chosen):
        for expert in chosen:
            x = x + (x @ self.up[expert].T).relu() @ self.down[expert].T
        return self.head(x)


@pytest.mark.parametrize("algorithm", ["set", "rigl"])
def test_each_expert_has_a_mask_and_one_without_a_token_rests(algorithm):
    torch.manual_seed(0)
    model = Experts()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    _, _, sparsifier = made([optimizer], algorithm, model, pattern="fan_in", update_interval=2)
    before = sparsifier.masks()
    assert before["up[3]"].shape == (12, 8) and before["down[0]"].shape == (8, 12)
    for step in range(8):
        optimizer.zero_grad()
        torch.manual_seed(step)
        model(torch.randn(5, 8), (0, 2)).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        for name, layer in (("up", sparsifier.layers["up"]), ("down", sparsifier.layers["down"])):
            assert not layer.parameter[~layer.mask].any(), name
            assert not optimizer.state[layer.parameter]["exp_avg"][~layer.mask].any()
    after = sparsifier.masks()
    for name in before:
        assert (after[name] == before[name]) == (name[-2] in "13"), name
        assert after[name].satisfies(sparsifier.pattern.definition)
    assert {n: m.nnz for n, m in after.items()} == {n: m.nnz for n, m in before.items()}


def test_an_unused_head_rests():
    model = nn.ModuleDict({"body": net(), "unused": nn.Linear(12, 12)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, _, sparsifier = made([optimizer], "set", model, layers="all", update_interval=1)
    before = sparsifier.masks()
    loss_of(model["body"], 0).backward()
    optimizer.step()
    assert sparsifier.step()
    after = sparsifier.masks()
    assert after["unused"] == before["unused"] and after["body.0"] != before["body.0"]
