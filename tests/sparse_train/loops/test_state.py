"""Optimizer state of inactive and grown weights; saving, copying, loading and stripping."""

import copy
import io

import pytest
import torch
from torch import nn

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms.rigl import RigL
from sparse_train.export import strip
from sparse_train.masking.optimizer_state import fresh_values
from sparse_train.testing import check_optimizers, known_optimizers, maker
from tests.sparse_train.loops._loops import loss_of, made, net, plain, same, whole

OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "Muon")
}  # fmt: skip


def test_the_optimizers_of_torch_are_all_here():
    assert {"Adam", "Rprop", "Adagrad", "ASGD", "Adamax", "LBFGS", "Adafactor"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_inactive_and_grown_weights_have_the_state_of_a_new_parameter(name):
    model = net()
    kind = OPTIMIZERS[name]
    optimizer = kind(model.parameters(), lr=0.01)
    _, _, sparsifier = made([optimizer], "rigl", model)
    for step in range(12):
        before = {n: layer.mask.clone() for n, layer in sparsifier.layers.items()}

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        optimizer.step(closure)
        sparsifier.step()
        for layer in sparsifier.layers.values():
            parameter = layer.parameter
            assert not parameter[~layer.mask].any()
            grown = layer.mask & ~before[layer.name]
            assert not parameter[grown].any()
            new = fresh_values(optimizer, parameter)
            for key, value in optimizer.state[parameter].items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    start = new.get(key, 0.0)
                    off = value[grown | ~layer.mask]
                    assert torch.allclose(off, torch.full_like(off, start)), (name, key)
    assert sparsifier.version >= 2


def test_each_optimizer_of_torch_is_listed_clean_or_refused():
    found = check_optimizers(maker(RigL()), known_optimizers(others=False))
    refused = found.pop("SparseAdam")
    assert refused.startswith("optimizer: type is SparseAdam") and "\n" not in refused
    assert {"Muon", "NAdam", "RAdam", "RMSprop", "Adadelta", *OPTIMIZERS} <= set(found)
    assert set(found.values()) == {"clean"}


@pytest.mark.parametrize("settings", [{}, {"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}])
def test_muon_takes_matrices_and_another_optimizer_the_rest(settings):
    """Its step mixes all weights of a matrix, and moves those without a gradient; its momentum is
    each weight's own."""
    model = net()
    weights = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(weights, lr=0.02, weight_decay=0.1, **settings)
    _, _, sparsifier = made([muon, torch.optim.AdamW(others, lr=0.01)], "rigl", model)
    for step in range(12):
        before = {n: layer.mask.clone() for n, layer in sparsifier.layers.items()}
        for optimizer in sparsifier.optimizers:
            optimizer.zero_grad()
        loss_of(model, step).backward()
        for optimizer in sparsifier.optimizers:
            optimizer.step()
        sparsifier.step()
        for name, layer in sparsifier.layers.items():
            off = ~layer.mask | ~before[name]
            momentum = muon.state[layer.parameter]["momentum_buffer"]
            assert not layer.parameter[off].any() and not momentum[off].any()
            assert momentum[~off].any()
    assert sparsifier.version >= 2 and sparsifier.steps == 12


def test_a_grown_weight_of_rprop_steps_as_far_as_a_new_one():
    optimizer = torch.optim.Rprop(net().parameters(), lr=0.013)
    found = fresh_values(optimizer, optimizer.param_groups[0]["params"][0])
    assert found["step_size"] == pytest.approx(0.013)
    adagrad = torch.optim.Adagrad(net().parameters(), initial_accumulator_value=0.5)
    assert fresh_values(adagrad, adagrad.param_groups[0]["params"][0])["sum"] == 0.5


def test_an_optimizer_for_sparse_gradients_is_refused():
    with pytest.raises(InputError, match="SparseAdam"):
        sparsify(net(), torch.optim.SparseAdam(net().parameters()))


class EightBit(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            self.state[p]["state1"] = torch.zeros_like(p, dtype=torch.uint8)


def test_moments_of_integers_are_refused_in_one_line_and_the_model_is_as_it_was():
    model = net()
    optimizer = EightBit(model.parameters(), lr=0.1)
    loss_of(model, 0).backward()
    optimizer.step()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"'state1' as torch\.uint8"):
        sparsify(model, optimizer, density=0.3)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_sparsify_that_fails_late_leaves_the_model_as_it_was(monkeypatch):
    from sparse_train.masking import optimizer_state

    def fail(*_):
        raise RuntimeError("late")

    model = net()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(optimizer_state, "zero_moments", fail)
    with pytest.raises(RuntimeError, match="late"):
        made(model=model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    loss_of(model, 0).backward()
    assert model[0].weight.grad.count_nonzero() > 150


class SavesItself(nn.Linear):
    """A module with a state of its own form, as quantised and sharded ones have."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}weight"] = self.weight.detach()
        destination[f"{prefix}bias"] = self.bias.detach()

    def _load_from_state_dict(self, state, prefix, *_):
        with torch.no_grad():
            self.weight.copy_(state[f"{prefix}weight"])
            self.bias.copy_(state[f"{prefix}bias"])


def own_net(seed=0):
    model = net(seed)
    model[0] = SavesItself(12, 16)
    return model


def save_and_load(parts, others):
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    file.seek(0)
    for part, state in zip(others, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_module_that_saves_itself_keeps_its_mask(order):
    one = made(model=own_net())
    plain(*one, 7)
    assert "0.weight_mask" in one[0].state_dict()
    other = made(model=own_net(seed=5), seed=3)
    save_and_load([one[i] for i in order], [other[i] for i in order])
    whole(other[2], other[1])
    plain(*one, 9, start=7)
    plain(*other, 9, start=7)
    same(one, other)


def test_a_dense_checkpoint_leaves_inactive_weights_zero():
    model, optimizer, sparsifier = made()
    model.load_state_dict(net(seed=4).state_dict(), strict=False)
    whole(sparsifier)
    assert (model[0].weight != 0).sum() == sparsifier.masks()["0"].nnz
    plain(model, optimizer, sparsifier, 4)


def test_a_copy_can_be_sparsified_and_stripped_again():
    model, _, sparsifier = made()
    twin = copy.deepcopy(model)
    again = sparsify(twin, None, "static", 0.2)
    assert again.masks() != sparsifier.masks()
    with pytest.raises(InputError, match="has a mask already"):
        sparsify(twin, None, "static", 0.2)
    loaded = pickled(model)
    assert "0.weight_mask" in loaded.state_dict()
    strip(loaded)
    assert set(loaded.state_dict()) == set(net().state_dict())
    assert (loaded[0].weight != 0).sum() == sparsifier.masks()["0"].nnz
    sparsify(loaded, None, "static", 0.2)
    with pytest.raises(InputError, match="Sparsifier"):
        strip(model)


def pickled(model):
    file = io.BytesIO()
    torch.save(strip_hooks(model), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def strip_hooks(model):
    return copy.deepcopy(model)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"density": 0.2}, "density"),
        ({"pattern": "fan_in"}, "pattern"),
        ({"update_interval": 5}, "update_interval"),
        ({"algorithm": "set"}, "algorithm"),
    ],
)
def test_a_foreign_state_is_refused(options, what):
    mine, other = made(), made(**options)
    plain(*other, 4)
    before = mine[2].masks()
    with pytest.raises(InputError, match=f"sparsifier state: {what} is"):
        mine[2].load_state_dict(other[2].state_dict())
    assert mine[2].masks() == before
