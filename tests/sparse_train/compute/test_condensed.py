"""A condensed layer is its matrix, in loss, gradients, answers and mask updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hwsim import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import View
from sparse_train.algorithms.deep_r import DeepR
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.algorithms.srigl import SRigL
from sparse_train.algorithms.static import Static
from sparse_train.compute.condensed import CondensedLinear
from sparse_train.compute.condensed_sparsifier import CondensedSparsifier
from sparse_train.distributions import distribution
from sparse_train.masking.plan import make_plan
from sparse_train.patterns import projection


def as_matrix(layer, values=None):
    values = layer.values.detach() if values is None else values
    whole = torch.zeros(layer.n_out, layer.n_in)
    return whole.scatter(1, layer.inputs.long(), values)


def dense_loss(x, weight, bias, labels):
    scores = x @ weight.T + bias
    right = torch.zeros(len(x), len(weight) + 1).scatter(1, labels, 1.0)[:, :-1]
    return F.binary_cross_entropy_with_logits(scores, right, reduction="sum") / len(x)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 6), st.integers(0, 99), st.data())
def test_loss_gradients_and_best_are_those_of_the_matrix(n_in, n_out, batch, seed, data):
    torch.manual_seed(seed)
    layer = CondensedLinear(n_in, n_out, data.draw(st.integers(1, n_in)), bias=-1.0)
    x = torch.randn(batch, n_in, requires_grad=True)
    labels = torch.randint(0, n_out + 1, (batch, 3))  # n_out: no label
    loss = layer.loss(x, labels)
    (3 * loss).backward()
    weight = as_matrix(layer).requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    same = x.detach().clone().requires_grad_()
    expected = dense_loss(same, weight, bias, labels)
    (3 * expected).backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(loss, expected, **close)
    torch.testing.assert_close(x.grad, same.grad, **close)
    torch.testing.assert_close(layer.bias.grad, bias.grad, **close)
    torch.testing.assert_close(
        layer.values.grad, weight.grad.gather(1, layer.inputs.long()), **close
    )
    scores = layer(x)
    torch.testing.assert_close(scores, same @ weight.T + bias, **close)
    best = layer.best(x, min(3, n_out))
    torch.testing.assert_close(
        scores.gather(1, best), torch.topk(scores, min(3, n_out)).values, **close
    )


def test_without_gradients_the_loss_is_the_same_and_none_is_made():
    torch.manual_seed(0)
    layer = CondensedLinear(8, 5, 2)
    x, labels = torch.randn(3, 8), torch.tensor([[0], [4], [5]])
    with torch.no_grad():
        quiet = layer.loss(x, labels)
    assert quiet == layer.loss(x, labels).detach() and layer.values.grad is None


def test_first_inputs_are_different_in_a_row_and_spread_over_all():
    torch.manual_seed(1)
    mask = CondensedLinear(16, 4000, 4).mask
    assert mask.nnz == 16_000
    assert abs(mask.col_nnz - 1000).max() < 5 * np.sqrt(1000)


def sparsifier(layer, algorithm, *, drop_fraction=0.4, interval=1, seed=0):
    model = nn.ModuleDict({"output": layer})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
    plan = make_plan(
        {"output": (layer.n_out, layer.n_in)}, density=layer.fan_in / layer.n_in,
        distribution=distribution("uniform"), schedule="constant", initial_density=1.0,
        update_interval=interval, drop_fraction=drop_fraction, drop_schedule="constant",
        end_step=None, total_steps=None,
    )  # fmt: skip
    return CondensedSparsifier(model, "output", optimizer, algorithm, plan, seed)


def trained(algorithm, *, n_in=10, n_out=30, fan_in=3, seed=0, **options):
    """One training step and its update, and what the layer was between the two."""
    torch.manual_seed(seed)
    layer = CondensedLinear(n_in, n_out, fan_in)
    made = sparsifier(layer, algorithm, **options)
    x, labels = torch.randn(6, n_in), torch.randint(0, n_out, (6, 2))
    layer.loss(x, labels).backward()
    made.optimizer.step()
    before = as_matrix(layer), layer.mask.array.copy(), x, labels
    return made, before, made.step()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([SRigL(), RigL(), Set()]), st.integers(0, 50), st.integers(1, 9),
    st.sampled_from([0.1, 0.5, 1.0]),
)  # fmt: skip
def test_an_update_keeps_the_fan_in_and_the_largest_weights(algorithm, seed, fan_in, drop):
    made, (weight, mask, *_), _ = trained(algorithm, seed=seed, fan_in=fan_in, drop_fraction=drop)
    new, layer = made.layer.mask.array, made.layer
    assert (new.sum(axis=1) == fan_in).all()
    n_keep = mask.sum() - int(round(mask.sum() * drop, 9))
    order = np.argsort(-np.abs(weight.numpy()[mask]), kind="stable")
    assert new[mask][order[:n_keep]].all()
    stayed = new & mask
    assert np.array_equal(as_matrix(layer).numpy()[stayed], weight.numpy()[stayed])
    for state in ("exp_avg", "exp_avg_sq"):
        moments = as_matrix(layer, made.optimizer.state[layer.values][state]).numpy()
        assert not moments[new & ~mask].any() and moments[stayed].any() == stayed.any()
    assert not as_matrix(layer).numpy()[new & ~mask].any()


@pytest.mark.parametrize("algorithm", [SRigL(), RigL()])
@pytest.mark.parametrize("seed", range(4))
def test_the_new_mask_is_that_of_the_algorithm_on_the_whole_matrix(algorithm, seed):
    made, (weight, mask, x, labels), _ = trained(algorithm, seed=seed)
    whole = weight.clone().requires_grad_()
    dense_loss(x, whole, made.layer.bias.detach(), labels).backward()
    view = View(
        step=1, weights={"output": weight.numpy()}, masks={"output": mask},
        budgets={"output": int(mask.sum())}, gradients={"output": whole.grad.numpy()},
        drop_fraction=0.4, pattern=projection("fan_in"), rng=np.random.default_rng(0),
        output_layer="output",
    )  # fmt: skip
    expected = algorithm.update(view, algorithm.start(view)).masks["output"]
    assert np.array_equal(made.layer.mask.array, expected)


def test_static_never_changes_and_random_growth_depends_on_the_seed():
    assert not trained(Static(), interval=0)[2]
    masks = [trained(Set(), drop_fraction=1.0)[0].layer.mask.digest for _ in range(2)]
    assert masks[0] == masks[1]
    torch.manual_seed(0)
    other = sparsifier(CondensedLinear(10, 30, 3), Set(), drop_fraction=1.0, seed=1)
    other.step()
    assert other.layer.mask.digest != masks[0]


def test_the_whole_state_goes_on_to_the_bit():
    def steps(made, n):
        generator = torch.Generator().manual_seed(made.steps)
        for _ in range(n):
            generator.manual_seed(made.steps)
            x = torch.randn(4, 10, generator=generator)
            made.optimizer.zero_grad()
            made.layer.loss(x, torch.tensor([[0], [1], [2], [3]])).backward()
            made.optimizer.step()
            made.step()
        return made

    torch.manual_seed(3)
    one = steps(sparsifier(CondensedLinear(10, 20, 3), SRigL(), interval=2), 6)
    torch.manual_seed(3)
    half = steps(sparsifier(CondensedLinear(10, 20, 3), SRigL(), interval=2), 3)
    saved = [s.state_dict() for s in (half.model, half.optimizer, half)]
    other = sparsifier(CondensedLinear(10, 20, 3), SRigL(), interval=2)
    for part, state in zip((other.model, other.optimizer, other), saved, strict=True):
        part.load_state_dict(state)
    steps(other, 3)
    assert torch.equal(other.layer.values, one.layer.values)
    assert torch.equal(other.layer.inputs, one.layer.inputs) and other.version == one.version


def test_nothing_that_is_not_finite_gets_into_a_mask():
    torch.manual_seed(0)
    made = sparsifier(CondensedLinear(10, 30, 3), SRigL())
    made.layer.loss(torch.randn(2, 10), torch.tensor([[0], [1]])).backward()
    made.layer.values.data[3, 1] = float("nan")
    before = made.layer.inputs.clone()
    with pytest.raises(InputError, match="step 1: layer 'output' has NaN"):
        made.step()
    assert torch.equal(before, made.layer.inputs)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="fan_in: value is 5; allowed is at least 1, at most 4"):
        CondensedLinear(4, 3, 5)
    with pytest.raises(InputError, match="DeepR does not keep constant fan-in"):
        sparsifier(CondensedLinear(4, 3, 2), DeepR())
    with pytest.raises(InputError, match="reinit_when_same"):
        sparsifier(CondensedLinear(4, 3, 2), Set(reinit_when_same=True))
    made = sparsifier(CondensedLinear(4, 3, 2), SRigL())
    state = {**made.state_dict(), "layers": {}}
    with pytest.raises(InputError, match="layers"):
        made.load_state_dict(state)


def test_figures_are_the_bytes_in_use():
    made, *_ = trained(SRigL(), n_in=10, n_out=30, fan_in=3)
    figures = made.figures()
    assert figures["weight_bytes"] == 360 and figures["moment_bytes"] == 720
    assert figures["index_bytes"] == 180 and figures["dense_bytes"] == 3600
    assert made.masks()["output"] == Mask(made.layer.mask.array)
