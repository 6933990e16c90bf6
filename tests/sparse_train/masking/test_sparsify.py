"""Masks on a model while it trains: the invariants of weights, gradients and optimizer state."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_train import sparsify
from tests.sparse_train.masking._sparsified import OPTIMIZERS, check_state, mlp, train

torch.set_num_threads(1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.conv = nn.Conv1d(8, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.head(self.conv(x.transpose(1, 2)).mean(-1))


def test_masks_are_boolean_buffers_in_the_state_dict():
    model = Attention()
    sparsifier = sparsify(model, torch.optim.AdamW(model.parameters()), density=0.3)
    buffers = dict(model.named_buffers())
    assert set(buffers) == {
        "attention.in_proj_weight_mask",
        "attention.out_proj.weight_mask",
        "conv.weight_mask",
    }
    assert all(b.dtype == torch.bool for b in buffers.values())
    assert set(buffers) <= set(model.state_dict())
    assert not any(name.endswith("mask") for name, _ in model.named_parameters())
    assert set(sparsifier.layers) == {"attention.in_proj_weight", "attention.out_proj", "conv"}
    assert sparsifier.masks()["conv"].shape == (6, 24)


def test_embeddings_norms_and_the_output_layer_are_left_out_and_said_so():
    model = Attention()
    sparsifier = sparsify(model, torch.optim.AdamW(model.parameters()))
    assert sparsifier.skipped == {
        "embedding": "Embedding is not masked unless named",
        "head": "output layer",
    }


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("all", {"attention.in_proj_weight", "attention.out_proj", "conv", "head"}),
        ("embedding", {"embedding"}),
        ("attention*", {"attention.in_proj_weight", "attention.out_proj"}),
        ([nn.Conv1d, "head"], {"conv", "head"}),
        (lambda name, module: isinstance(module, nn.Embedding), {"embedding"}),
    ],
)
def test_layers_are_chosen_by_name_pattern_type_or_function(chosen, names):
    model = Attention()
    sparsifier = sparsify(model, torch.optim.AdamW(model.parameters()), layers=chosen)
    assert set(sparsifier.layers) == names


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["static", "set", "rigl"]),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
    st.integers(1, 3),
)
def test_weights_and_moments_stay_zero_where_inactive(algorithm, optimizer, density, seed, micro):
    model = mlp(seed)
    made = OPTIMIZERS[optimizer](model.parameters())
    sparsifier = sparsify(
        model, made, algorithm, density, update_interval=3, total_steps=20, seed=seed
    )
    nnz = {n: m.nnz for n, m in sparsifier.masks().items()}
    total = sum(m.size for m in sparsifier.masks().values())
    assert sum(nnz.values()) == max(int(total * density + 0.5), len(nnz))
    for _ in range(10):
        train(model, made, sparsifier, 1, micro=micro, seed=sparsifier.steps)
        check_state(sparsifier, made)
        assert {n: m.nnz for n, m in sparsifier.masks().items()} == nnz


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_grown_weights_and_their_moments_start_at_zero(optimizer):
    model = mlp()
    made = OPTIMIZERS[optimizer](model.parameters())
    sparsifier = sparsify(model, made, "rigl", 0.3, update_interval=5, total_steps=40)
    train(model, made, sparsifier, 4)
    before = {n: m.array for n, m in sparsifier.masks().items()}
    weights = {n: layer.parameter.detach().clone() for n, layer in sparsifier.layers.items()}
    train(model, made, sparsifier, 1)
    grown_at_all = 0
    for name, layer in sparsifier.layers.items():
        after = sparsifier.masks()[name].array
        grown = torch.from_numpy(after & ~before[name])
        grown_at_all += int(grown.sum())
        assert not layer.parameter[grown].any()
        kept = torch.from_numpy(after & before[name])
        assert (layer.parameter[kept] != 0).all()
        assert not torch.equal(layer.parameter[kept], weights[name][kept])
        for value in made.state[layer.parameter].values():
            if value.shape == layer.parameter.shape:
                assert not value[grown].any()
                assert value[kept].any()
    assert grown_at_all > 0


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_dense_gradients_are_those_of_the_whole_step_however_it_is_accumulated(micro):
    model = mlp()
    twin = copy.deepcopy(model)
    sparsifier = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), "rigl", 0.2,
                          update_interval=1)  # fmt: skip
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if "mask" not in k})
    batches = [torch.randn(6, 12) for _ in range(micro)]
    for batch in batches:
        model(batch).square().mean().backward()
        twin(batch).square().mean().backward()
    for name, layer in sparsifier.layers.items():
        dense = twin.get_submodule(name).weight.grad
        assert torch.allclose(sparsifier._dense.now[name], dense, atol=1e-6)
        assert torch.allclose(layer.parameter.grad, dense * layer.mask, atol=1e-6)


def test_clipping_sees_the_masked_gradient():
    model = mlp()
    sparsifier = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), "rigl", 0.2,
                          update_interval=1)  # fmt: skip
    model(torch.randn(6, 12)).square().mean().backward()
    masked = [
        p.grad * getattr(m, "weight_mask", torch.ones(()))
        for m in model
        for n, p in m.named_parameters()
        if n == "weight"
    ] + [m.bias.grad for m in model if hasattr(m, "bias")]
    expected = torch.sqrt(sum(g.square().sum() for g in masked))
    assert torch.allclose(nn.utils.get_total_norm(p.grad for p in model.parameters()), expected)
    assert sparsifier.needs_dense_gradient


def test_dense_gradients_are_held_in_update_steps_only():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.2, update_interval=4)
    held = []
    for _ in range(8):
        made.zero_grad()
        model(torch.randn(6, 12)).square().mean().backward()
        held.append(bool(sparsifier._dense.now))
        made.step()
        sparsifier.step()
        assert not sparsifier._dense.now
    assert held == [False, False, False, True] * 2


def test_step_says_when_masks_changed_and_snapshots_are_kept_until_then():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "set", 0.3, update_interval=3, total_steps=100)
    seen = [sparsifier.masks()]
    for step in range(1, 7):
        made.zero_grad()
        model(torch.randn(6, 12)).square().mean().backward()
        made.step()
        due = sparsifier.is_update_step()
        changed = sparsifier.step()
        assert changed == due == (step % 3 == 0)
        masks = sparsifier.masks()
        assert all((masks[n] is seen[-1][n]) == (not changed) for n in masks)
        seen.append(masks)
    assert sparsifier.version == 2
    assert sparsifier.density == pytest.approx(0.3, abs=0.002)
