import copy

import pytest
import torch
from torch import nn

from hwsim import InputError
from hwsim.kernels.cpu.tiled import PackedActivations
from sparse_train.compute.sparse_linear import SparseCompute, sparse_compute
from sparse_train.sparsify import sparsify


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(20, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 33, bias=False), nn.ReLU(),
        nn.Linear(33, 5),
    )  # fmt: skip


def trained(compute, algorithm="rigl", steps=12, shape=(70, 20), fused=False, **options):
    """Losses and weights of a short run."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    sparsifier = sparsify(
        model, optimizer, algorithm, 0.2, update_interval=4, total_steps=100, **options
    )
    if compute:
        SparseCompute(sparsifier, threads=2)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(*shape, generator=generator)
        loss = (model(x) - x[..., :5]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        losses.append(loss.item())
    return losses, model, sparsifier


@pytest.mark.parametrize(
    ("algorithm", "fused"), [("static", False), ("set", False), ("rigl", False), ("rigl", True)]
)
def test_losses_equal_those_of_the_masked_dense_run(algorithm, fused):
    dense, dense_model, dense_masks = trained(False, algorithm, fused=fused)
    sparse, sparse_model, sparse_masks = trained(True, algorithm, fused=fused)
    assert sparse == pytest.approx(dense, rel=1e-5)
    assert sparse_masks.masks() == dense_masks.masks()
    for ours, theirs in zip(sparse_model.parameters(), dense_model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_inputs_of_three_dimensions_and_a_ragged_batch():
    dense, _, _ = trained(False, shape=(3, 7, 20))
    sparse, _, _ = trained(True, shape=(3, 7, 20))
    assert sparse == pytest.approx(dense, rel=1e-5)


def test_gradients_equal_those_of_the_dense_layer():
    model = network()
    sparsifier = sparsify(model, None, "static", 0.2)
    reference = copy.deepcopy(model)
    x = torch.randn(9, 20, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    with sparse_compute(sparsifier) as compute:
        assert len(compute.layers) == 2
        model(x).square().sum().backward()
    reference(other).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-6)
    for layer, theirs in zip((model[0], model[3]), (reference[0], reference[3]), strict=True):
        expected = theirs.weight.grad * layer.weight_mask
        torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model[0].bias.grad, reference[0].bias.grad, rtol=1e-4, atol=1e-6)


def test_layers_that_read_one_input_share_its_packing_until_it_changes(monkeypatch):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(32, 16)])
    sparsifier = sparsify(model, None, "static", 0.2, layers="all", distribution="uniform")
    packed = []
    usual = PackedActivations.of
    monkeypatch.setattr(PackedActivations, "of", lambda *given: packed.append(1) or usual(*given))
    with sparse_compute(sparsifier), torch.no_grad():
        x = torch.randn(3, 8, 32)
        first = [layer(x) for layer in model]
        assert len(packed) == 1
        x *= 2
        second = [layer(x) for layer in model]
        assert len(packed) == 2
        with torch.inference_mode():
            y = x * 1
            third = [layer(y) for layer in model]
    plain = [nn.functional.linear(x, layer.weight, layer.bias) for layer in model]
    for once, twice, same, expected in zip(first, second, third, plain, strict=True):
        torch.testing.assert_close(twice, expected)
        torch.testing.assert_close(same, expected)
        assert not torch.allclose(once, twice)


def test_a_frozen_input_gets_no_gradient():
    model = network()
    with sparse_compute(sparsify(model, None, "static", 0.2)):
        model(torch.randn(4, 20)).sum().backward()
    assert model[0].weight.grad is not None


def test_new_values_and_new_masks_are_seen():
    model = network()
    sparsifier = sparsify(model, None, "static", 0.2)
    x = torch.randn(4, 20)
    with sparse_compute(sparsifier), torch.no_grad():
        model(x)
        model[0].weight.mul_(2)
        model[0].weight_mask.copy_(model[0].weight_mask.roll(1, 0))
        model[0].weight.copy_(torch.randn(48, 20) * model[0].weight_mask)
        ours = model(x)
    with torch.no_grad():
        torch.testing.assert_close(ours, model(x), rtol=1e-4, atol=1e-6)


def test_dense_layers_and_other_inputs_compute_as_before():
    model = network()
    sparsifier = sparsify(model, None, "static", 0.5)
    x = torch.randn(4, 20)
    expected = model(x)
    with sparse_compute(sparsifier, densest=0.1):
        assert torch.equal(model(x), expected)
        assert model(torch.empty(0, 20)).shape == (0, 5)
    assert torch.equal(model(x), expected)


def test_a_weight_changed_before_backward_is_an_error():
    model = network()
    with sparse_compute(sparsify(model, None, "static", 0.2)):
        loss = model(torch.randn(4, 20)).sum()
        with torch.no_grad():
            model[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_layers_that_are_called_around_are_skipped_with_a_reason():
    attention = nn.MultiheadAttention(16, 2)
    model = nn.ModuleDict({"attention": attention, "conv": nn.Conv1d(4, 4, 3)})
    compute = SparseCompute(sparsify(model, None, "static", 0.5, layers="all"))
    assert compute.layers == ()
    assert len(compute.skipped) == 3
    assert all("Linear" in reason for reason in compute.skipped.values())


def test_layers_above_the_density_that_pays_are_named_with_it():
    sparsifier = sparsify(network(), None, "static", 0.5, distribution="uniform")
    with sparse_compute(sparsifier, densest=0.3) as compute:
        assert compute.skipped == {}
        assert compute.dense_layers() == dict.fromkeys(
            sparsifier.layers, "density 0.50 is above 0.3"
        )
    with sparse_compute(sparsifier, densest=0.6) as compute:
        assert compute.dense_layers() == {}


def test_bad_input_is_named():
    sparsifier = sparsify(network(), None, "static", 0.2)
    with pytest.raises(InputError, match="sparsifier: type is Linear"):
        SparseCompute(nn.Linear(2, 2))
    with pytest.raises(InputError, match="threads: value is 0"):
        SparseCompute(sparsifier, threads=0)
    with pytest.raises(InputError, match="densest: value is 2"):
        SparseCompute(sparsifier, densest=2)
    SparseCompute(sparsifier)
    with pytest.raises(InputError, match="replaced already"):
        SparseCompute(sparsifier)


def test_a_recorded_step_has_every_layer_as_without_the_kernels():
    from sparse_train.workload import workload

    model = network()
    batch = torch.randn(70, 20)
    dense = workload(model, batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsifier = sparsify(model, optimizer, "static", 0.2)
    with sparse_compute(sparsifier, threads=1) as compute:
        assert compute.layers and set(compute.layers) < set(dense.layers)
        for real in (False, True):
            assert workload(model, batch, real=real).ops == dense.ops
