"""Masks beside the rest of torch: AMP, compile, checkpointing, DDP, safetensors, export."""

import copy
import io
import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.export import condensed, plain
from sparse_train.regularisers import L1, GroupLasso, Hoyer

torch.set_num_threads(1)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 3)
    )


def train(model, optimizer, sparsifier, steps, forward=None):
    for step in range(steps):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        (forward or model)(torch.randn(8, 12)).square().mean().backward()
        optimizer.step()
        sparsifier.step()


def made(algorithm="rigl", seed=0, **others):
    model = mlp(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    given = {"density": 0.3, "update_interval": 3, "total_steps": 40, **others}
    return model, optimizer, sparsify(model, optimizer, algorithm, **given)


def test_activation_checkpointing_gives_the_same_masks_and_weights():
    one, two = made(), made()
    train(*one, 10)
    train(*two, 10, forward=lambda x: checkpoint_sequential(two[0], 2, x, use_reentrant=False))
    assert one[2].masks() == two[2].masks()
    for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_a_compiled_model_gives_the_same_masks():
    one, two = made(), made()
    compiled = torch.compile(two[0], backend="aot_eager")
    train(*one, 10)
    train(*two, 10, forward=compiled)
    assert one[2].masks() == two[2].masks()
    assert one[2].version == 3


def test_an_overflow_under_a_scaler_puts_the_update_off_and_masks_stay():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsifier = sparsify(model, optimizer, "rigl", 0.3, update_interval=2, scaler=scaler)
    before, changes = sparsifier.masks(), []
    # The second step's gradient overflows.
    for overflow in (False, True, False):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(8, 12)).square().mean()
        scaler.scale(loss).backward()
        if overflow:
            model[0].bias.grad[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        changes.append(sparsifier.step())
        if overflow:
            assert sparsifier.masks() == before
    assert changes == [False, False, True]
    assert sparsifier.steps == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_overflow_of_an_inactive_weight_reaches_the_scaler_in_update_steps():
    scaler = torch.amp.GradScaler("cpu")
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsifier = sparsify(model, optimizer, "rigl", 0.3, update_interval=1, scaler=scaler)
    gradient = torch.zeros_like(model[0].weight)
    gradient[tuple(torch.nonzero(~model[0].weight_mask)[0])] = torch.inf
    sparsifier._dense.add(sparsifier.layers["0"], gradient)
    assert gradient.isnan().all()


def test_half_precision_weights_stay_half_and_zero():
    model = mlp().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier = sparsify(model, optimizer, "rigl", 0.3, update_interval=2)
    train(model, optimizer, sparsifier, 6, forward=lambda x: model(x.to(torch.bfloat16)))
    for layer in sparsifier.layers.values():
        assert layer.parameter.dtype == torch.bfloat16
        assert not layer.parameter[~layer.mask].any()


def test_weights_and_masks_go_through_safetensors(tmp_path):
    model, optimizer, sparsifier = made()
    train(model, optimizer, sparsifier, 5)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = made(seed=5)
    other[0].load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert other[2].masks() == sparsifier.masks()
    assert torch.equal(other[0][0].weight, model[0].weight)


def test_a_whole_model_is_pickled_without_its_hooks():
    model, optimizer, sparsifier = made()
    train(model, optimizer, sparsifier, 4)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert torch.equal(other[0].weight_mask, model[0].weight_mask)


def test_a_plain_export_computes_the_same_and_has_no_masks():
    model, optimizer, sparsifier = made()
    train(model, optimizer, sparsifier, 5)
    exported = plain(sparsifier)
    x = torch.randn(4, 12)
    assert torch.equal(exported(x), model(x))
    assert not any("mask" in key for key in exported.state_dict())
    assert any("mask" in key for key in model.state_dict())
    train(model, optimizer, sparsifier, 2)


@pytest.mark.parametrize("pattern", ["unstructured", "fan_in", "block:2,2", "neuron"])
def test_condensed_weights_hold_every_active_value(pattern):
    model, optimizer, sparsifier = made(pattern=pattern)
    train(model, optimizer, sparsifier, 5)
    for name, packed in condensed(sparsifier).items():
        dense = sparsifier.pattern.definition.unpack(packed)
        assert np.array_equal(dense, sparsifier.layers[name].parameter.detach().numpy())


@pytest.mark.parametrize("regulariser", [L1(1e-2), GroupLasso(1e-2), Hoyer(lambda p: 1e-2 * p)])
def test_a_regulariser_draws_weights_to_zero_and_keeps_the_invariants(regulariser):
    one, two = made("set"), made("set", regulariser=regulariser)
    train(*one, 20)
    train(*two, 20)
    size = [regulariser.penalty(r[0][0].weight).item() for r in (one, two)]
    assert size[1] < size[0]
    assert not two[0][0].weight[~two[0][0].weight_mask].any()


def test_regulariser_gradients_are_those_of_the_formulas():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert L1().gradient(weight).tolist() == [[1, 1], [0, 0]]
    expected = 2**0.5 * weight / 5
    assert torch.allclose(GroupLasso().gradient(weight), expected)
    assert GroupLasso(axis=1).penalty(weight).item() == pytest.approx(2**0.5 * 7)
    assert Hoyer().penalty(weight).item() == pytest.approx(49 / 25)
    assert not Hoyer().gradient(torch.zeros(2, 2)).any()
    with pytest.raises(InputError, match="strength: value is -1"):
        L1(-1)


def rank_run(rank, world, port, algorithm, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = sparsify(model, optimizer, algorithm, 0.3, update_interval=2, total_steps=20)
    wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    for step in range(8):
        torch.manual_seed(step)
        batch = torch.randn(8, 12)
        optimizer.zero_grad()
        wrapped(batch[rank::world]).square().mean().backward()
        optimizer.step()
        sparsifier.step()
    results[rank] = {name: mask.digest for name, mask in sparsifier.masks().items()}
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rigl", "set", "snfs"])
def test_masks_are_the_same_on_both_ranks_and_as_on_one(algorithm):
    results = {}
    for world in (1, 2):
        with mp.Manager() as manager:
            shared = manager.dict()
            port = 29500 + os.getpid() % 1000 + world
            mp.spawn(rank_run, (world, port, algorithm, shared), nprocs=world)
            results[world] = dict(shared)
    assert results[2][0] == results[2][1]
    assert results[2][0] == results[1][0]


def test_copies_of_model_and_sparsifier_do_not_share_masks():
    model, optimizer, sparsifier = made()
    other = copy.deepcopy((model, optimizer, sparsifier))
    train(model, optimizer, sparsifier, 6)
    assert other[2].steps == 0
    assert other[2].masks() != sparsifier.masks()
