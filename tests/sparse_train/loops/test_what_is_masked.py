"""Only true weights are masked, each along its own inputs, whatever way it is stored."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization

from hwsim import InputError
from sparse_train import sparsify, workload
from tests.sparse_train.loops._loops import made, whole

torch.set_num_threads(1)


class Conv1D(nn.Module):
    """A linear layer stored (in, out), as GPT-2 has it."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.1)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def trained(model, x, steps=7, **options):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    _, _, sparsifier = made([optimizer], "rigl", model, update_interval=2, **options)
    for step in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(step)
        output = model(x)
        output = output[0] if isinstance(output, tuple) else output
        (output - 1).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        whole(sparsifier, optimizer)
    return sparsifier


def test_two_of_four_lie_along_the_inputs_of_a_layer_stored_in_out():
    model = nn.Sequential(Conv1D(24, 8), nn.ReLU(), Conv1D(8, 24), nn.Linear(8, 2))
    sparsifier = trained(
        model, torch.randn(5, 8), density=0.5, pattern="2:4", distribution="uniform"
    )
    mask = sparsifier.layers["0"].mask  # (in, out)
    assert sparsifier.masks()["0"].shape == (24, 8)
    assert (mask.view(2, 4, 24).sum(1) == 2).all()


def test_fan_in_is_that_of_an_output_of_a_layer_stored_in_out():
    model = nn.Sequential(Conv1D(24, 8), nn.ReLU(), Conv1D(8, 24), nn.Linear(8, 2))
    sparsifier = trained(model, torch.randn(5, 8), pattern="fan_in", distribution="uniform")
    assert (sparsifier.layers["0"].mask.sum(0) == 2).all()


@pytest.mark.parametrize("square", [True, False])
def test_the_price_of_a_layer_stored_in_out_is_that_of_the_linear_layer(square):
    n = 8 if square else 24
    stored, linear = Conv1D(n, 8), nn.Linear(8, n)
    mask = np.random.default_rng(0).random((n, 8)) < 0.3
    x = torch.randn(5, 8)
    from hwsim import Mask

    one = workload(nn.Sequential(stored), x, {"0": Mask(mask)})
    other = workload(nn.Sequential(linear), x, {"0": Mask(mask)})
    keys = ("kind", "phase", "m", "n", "k", "weight_shape", "dense_flops")
    products = [[tuple(getattr(op, k) for k in keys) for op in w.ops if op.kind == "gemm"]
                for w in (one, other)]  # fmt: skip
    assert products[0] == products[1]


def test_masks_of_a_model_with_all_ways_of_storing_fit_its_workload():
    model = nn.Sequential(
        nn.ConvTranspose1d(4, 6, 3), nn.ReLU(), nn.Flatten(), Conv1D(12, 60), nn.Linear(12, 2)
    )
    x = torch.randn(3, 4, 8)
    sparsifier = sparsify(model, None, "static", 0.3)
    assert sparsifier.masks()["0"].shape == (18, 4)
    priced = workload(model, x, sparsifier.masks())
    assert {op.name for op in priced.ops if op.mask is not None} == {"0", "3"}


def test_recurrent_layers_are_masked():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 8, 2, bidirectional=True), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    sparsifier = trained(Net(), torch.randn(4, 3, 6))
    assert len(sparsifier.layers) == 8 and sparsifier.skipped == {"head": "output layer"}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_a_weight_norm_whose_gain_or_empty_neuron_would_die_is_left_out(norm):
    model = nn.Sequential(norm(nn.Linear(12, 32)), nn.Linear(32, 8), nn.Linear(8, 2))
    sparsifier = sparsify(model, None, "static", 0.1)
    assert set(sparsifier.layers) == {"1"} and "norm divides" in sparsifier.skipped["0"]
    with pytest.raises(InputError, match="norm divides"):
        sparsify(model, None, "static", 0.1, layers="0")


def test_spectral_norm_and_prune_are_masked_beneath():
    spectral = nn.Sequential(parametrizations.spectral_norm(nn.Linear(12, 8)), nn.Linear(8, 2))
    assert set(trained(spectral, torch.randn(5, 12)).layers) == {"0"}
    pruned = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 2))
    prune.random_unstructured(pruned[0], "weight", 0.5)
    assert set(sparsify(pruned, None, "static", 0.3).layers) == {"0"}


def test_a_parametrization_that_fills_zeros_is_left_out_with_the_reason():
    class Symmetric(nn.Module):
        def forward(self, x):
            return x + x.T

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    register_parametrization(model[0], "weight", Symmetric())
    sparsifier = sparsify(model, None, "static", 0.3)
    assert set(sparsifier.layers) == {"1"} and "zero" in sparsifier.skipped["0"]


def test_what_lies_beside_a_weight_is_none():
    class Noisy(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.weight_sigma = nn.Parameter(torch.ones_like(self.weight))

    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, kdim=6, vdim=6)
    adapter = nn.ModuleDict({"base": nn.Linear(8, 8), "lora_A": nn.Linear(8, 2, bias=False)})
    model = nn.ModuleDict({"a": attention, "l": adapter, "n": Noisy(8, 8), "head": nn.Linear(8, 2)})
    assert set(sparsify(model, None, "static", 0.3).layers) == {
        "a.q_proj_weight", "a.k_proj_weight", "a.v_proj_weight", "a.out_proj", "l.base", "n",
    }  # fmt: skip


def test_nothing_to_mask_says_why():
    with pytest.raises(InputError, match="nothing to mask in Bilinear"):
        sparsify(nn.Bilinear(3, 4, 5), None, "static", 0.3)
