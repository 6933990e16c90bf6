"""Sparsified models saved, copied, stripped, and what is refused."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from hwsim import InputError, Mask
from sparse_train import sparsify
from tests.sparse_train.masking._sparsified import OPTIMIZERS, check_state, mlp, train

torch.set_num_threads(1)


def test_a_moving_schedule_ends_at_its_target_to_the_integer():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.1, schedule="cubic", initial_density=1.0,
                          update_interval=7, total_steps=100, distribution="uniform")  # fmt: skip
    assert sparsifier.density == 1.0
    seen = []
    for _ in range(100):
        train(model, made, sparsifier, 1)
        seen.append(sparsifier.density)
    total = sum(m.size for m in sparsifier.masks().values())
    assert sum(m.nnz for m in sparsifier.masks().values()) == int(total * 0.1 + 0.5)
    assert seen == sorted(seen, reverse=True)


def resumed(algorithm, optimizer, stop):
    torch.manual_seed(0)
    model = mlp()
    made = OPTIMIZERS[optimizer](model.parameters())
    sparsifier = sparsify(model, made, algorithm, 0.3, update_interval=3, total_steps=40)
    losses = []
    for step in range(20):
        if step == stop:
            saved = io.BytesIO()
            torch.save([model.state_dict(), made.state_dict(), sparsifier.state_dict()], saved)
            saved.seek(0)
            model = mlp(seed=9)
            made = OPTIMIZERS[optimizer](model.parameters())
            sparsifier = sparsify(model, made, algorithm, 0.3, update_interval=3, total_steps=40)
            for what, state in zip(
                (model, made, sparsifier), torch.load(saved, weights_only=True), strict=True
            ):
                what.load_state_dict(state)
        losses += train(model, made, sparsifier, 1, seed=step)
    return losses, sparsifier.masks(), model.state_dict(), sparsifier.version


@pytest.mark.parametrize("algorithm", ["static", "set", "rigl"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [1, 6, 11])
def test_saved_loaded_and_gone_on_equals_never_interrupted(algorithm, optimizer, stop):
    one, two = resumed(algorithm, optimizer, None), resumed(algorithm, optimizer, stop)
    assert one[0] == two[0]
    assert one[1] == two[1]
    assert all(torch.equal(a, b) for a, b in zip(one[2].values(), two[2].values(), strict=True))
    assert one[3] == two[3]


def test_a_deep_copy_trains_on_alone_and_alike():
    model = mlp()
    made = OPTIMIZERS["adamw"](model.parameters())
    sparsifier = sparsify(model, made, "rigl", 0.3, update_interval=3, total_steps=40)
    train(model, made, sparsifier, 4)
    other = copy.deepcopy((model, made, sparsifier))
    assert train(model, made, sparsifier, 8) == train(*other, 8)
    assert sparsifier.masks() == other[2].masks()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other[0].parameters()))  # noqa: B905
    assert other[0][0].weight_mask is not model[0].weight_mask


def test_replace_step_leaves_every_weight_where_it_was():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.3, update_interval=2, replace_step=True)
    train(model, made, sparsifier, 1)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, made, sparsifier, 1)
    for old, new in zip(before, model.parameters(), strict=True):
        same = (new == old) | (new == 0)
        assert same.all()
    assert sparsifier.version == 1


def test_remove_leaves_a_plain_pruned_model():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.3)
    off = ~model[0].weight_mask
    sparsifier.remove()
    assert not any("mask" in key for key in model.state_dict())
    assert not model[0].weight[off].any()
    model(torch.randn(6, 12)).square().mean().backward()
    assert model[0].weight.grad[off].any()
    sparsify(model, made, "set", 0.2)


def test_a_step_that_was_skipped_is_not_counted():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.3, update_interval=1)
    model(torch.randn(6, 12)).square().mean().backward()
    assert sparsifier.step() is False
    assert sparsifier.steps == 0
    made.step()
    assert sparsifier.is_update_step()


def test_no_optimizer_gives_masks_and_counts_every_call():
    model = mlp()
    sparsifier = sparsify(model, None, "set", 0.3, update_interval=2)
    assert [sparsifier.step() for _ in range(4)] == [False, True, False, True]


def test_given_masks_are_taken():
    model = mlp()
    masks = {"0": np.eye(16, 12, dtype=bool), "2": Mask(np.eye(10, 16, dtype=bool))}
    sparsifier = sparsify(model, None, "static", initial_masks=masks)
    assert sparsifier.masks()["0"] == Mask(masks["0"])
    assert sparsifier.masks()["2"] == masks["2"]


def test_density_zero_and_one_are_what_they_say():
    for density in (0.0, 1.0):
        sparsifier = sparsify(mlp(), None, "static", density)
        assert sparsifier.density == density


def shared():
    model = mlp()
    model[2].weight = nn.Parameter(torch.randn(10, 16))
    model.extra = nn.Linear(16, 10)
    model.extra.weight = model[2].weight
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 1.5}, "density: value is 1.5"),
        ({"density": "much"}, "density: value is 'much'"),
        ({"algorithm": "riggl"}, "unknown algorithm 'riggl'.*did you mean 'rigl'"),
        ({"algorithm": 3}, "algorithm: type is int"),
        ({"rounded": "floor"}, "unknown option of rigl 'rounded'.*rounding"),
        ({"pattern": "blocky"}, "unknown pattern 'blocky'"),
        ({"distribution": "erkk"}, "unknown distribution"),
        ({"schedule": "cubic"}, "give total_steps or end_step"),
        ({"update_interval": -1}, "update_interval: value is -1"),
        ({"drop_fraction": 1.2}, "drop_fraction: value is 1.2"),
        ({"drop_schedule": "sine"}, "unknown drop schedule"),
        ({"total_steps": 0}, "total_steps: value is 0"),
        ({"seed": -1}, "seed: value is -1"),
        ({"layers": "nothing"}, "unknown layer 'nothing'"),
        ({"layers": "0.bias"}, "layer '0.bias': rank is 1"),
        ({"initial_masks": {"0": np.eye(16, 12, dtype=bool)}}, "'2' is in only one of"),
        (
            {"initial_masks": {"0": np.eye(3, dtype=bool), "2": np.eye(10, 16, dtype=bool)}},
            r"shape of '0' is \(3, 3\)",
        ),
        (
            {"initial_masks": {"0": np.eye(16, 12), "2": np.eye(10, 16, dtype=bool)}},
            "dtype is float64",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_the_model_as_it_was(change, message):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    made = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InputError, match=message):
        sparsify(model, made, **change)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    sparsify(model, made)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_weights_that_cannot_be_masked_are_refused_by_name():
    model = mlp()
    model[0].weight.requires_grad_(False)
    with pytest.raises(InputError, match="layer '0': cannot be masked: it is frozen"):
        sparsify(model, torch.optim.SGD(model.parameters(), 0.1), layers="0")
    assert "0" in sparsify(model, torch.optim.SGD(model.parameters(), 0.1)).skipped
    tied = shared()
    with pytest.raises(InputError, match="shared by 2 and extra"):
        sparsify(tied, torch.optim.SGD(tied.parameters(), 0.1), layers="2")
    with pytest.raises(InputError, match="not in the optimizer"):
        model = mlp()
        sparsify(model, torch.optim.SGD(model[0].parameters(), 0.1), layers="2")
    with pytest.raises(InputError, match="nothing to mask in ReLU"):
        sparsify(nn.ReLU(), None)
    with pytest.raises(InputError, match=r"shape \(0, 4\) has no element"):
        sparsify(nn.Linear(4, 0), None, layers="weight")
    with pytest.raises(InputError, match="has no shape yet"):
        sparsify(nn.LazyLinear(4), None)
    with pytest.raises(InputError, match="has NaN or infinity"):
        model = mlp()
        model[0].weight.data[0, 0] = torch.nan
        sparsify(model, None)
    with pytest.raises(InputError, match="has a mask already"):
        model = mlp()
        sparsify(model, None)
        sparsify(model, None)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
def test_a_parameter_in_the_optimizer_twice_is_refused():
    model = mlp()
    twice = torch.optim.SGD([model[0].weight, model[0].weight], 0.1)
    with pytest.raises(InputError, match="in it twice"):
        sparsify(model, twice)


def test_a_gradient_that_is_no_number_leaves_masks_and_weights_intact():
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.3, update_interval=1)
    off = torch.nonzero(~model[0].weight_mask)[0]
    model(torch.randn(6, 12)).square().mean().backward()
    sparsifier._dense.now["0"][tuple(off)] = torch.nan
    made.step()
    masks = sparsifier.masks()
    with pytest.raises(InputError, match="step 1: the gradient of layer '0' has NaN"):
        sparsifier.step()
    assert sparsifier.masks() == masks
    assert sparsifier.steps == 0
    check_state(sparsifier, made)


@pytest.mark.parametrize(
    ("key", "value"), [("algorithm", "Set"), ("layers", {"9": [3, 3]}), ("format", 9)]
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(key, value):
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, made, "rigl", 0.3)
    train(model, made, sparsifier, 2)
    saved = {**sparsifier.state_dict(), "steps": 77, key: value}
    with pytest.raises(InputError, match=f"sparsifier state: {key}"):
        sparsifier.load_state_dict(saved)
    with pytest.raises(InputError, match="keys"):
        sparsifier.load_state_dict({"steps": 3})
    assert sparsifier.steps == 2
