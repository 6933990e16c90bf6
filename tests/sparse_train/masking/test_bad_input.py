"""What cannot be done is refused in one line, and model, optimizer and masks stay as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.testing import small_model, train_step

torch.set_num_threads(1)


def everything(model, optimizer, sparsifier=None):
    parts = [model.state_dict(), optimizer.state_dict()]
    if sparsifier is not None:
        parts.append({k: v for k, v in sparsifier.state_dict().items() if k != "layers"})
    hooks = [len(p._post_accumulate_grad_hooks or {}) for p in model.parameters()]
    return copy.deepcopy(parts), hooks


def equal(one, two):
    if torch.is_tensor(one):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def trained():
    """A model whose optimizer has moments already."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.randn(4, 3, 7)).square().mean().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 1.5}, "density"),
        ({"density": -0.1}, "density"),
        ({"density": float("nan")}, "density"),
        ({"density": True}, "density"),
        ({"density": 0.3, "pattern": "2:4", "distribution": "uniform"}, "2:4|density"),
        ({"density": 0.3, "pattern": "transposable_n_m", "distribution": "uniform"}, "density"),
        ({"pattern": "n_m:5,4"}, "n|m"),
        ({"pattern": "block:0,4"}, "block"),
        ({"pattern": "group:0"}, "group"),
        ({"pattern": "group:4,-1"}, "every"),
        ({"pattern": "balanced:0"}, "balanced"),
        ({"pattern": "triangles"}, "triangles"),
        ({"algorithm": "srigl", "pattern": "block"}, "does not go with"),
        ({"algorithm": "regal"}, "regal"),
        ({"distribution": {"nowhere": 0.5}}, "nowhere"),
        ({"distribution": "erkk"}, "erkk"),
        ({"schedule": "cubical"}, "cubical"),
        ({"schedule": "cubic"}, "total_steps|end_step"),
        ({"update_interval": -1}, "update_interval"),
        ({"drop_fraction": 1.1}, "drop_fraction"),
        ({"layers": "nowhere"}, "nowhere"),
        ({"layers": "4.weight"}, "rank is 1|nowhere|layer"),
        ({"initial_masks": {"0": np.ones((2, 2), bool)}}, "initial_masks"),
        ({"seed": -1}, "seed"),
        ({"speed": 3}, "speed"),
    ],
)
def test_settings_that_cannot_be_leave_model_and_optimizer_as_they_were(options, message):
    model, optimizer = trained()
    before = everything(model, optimizer)
    with pytest.raises(InputError, match=message) as caught:
        sparsify(model, optimizer, **{"algorithm": "rigl", **options})
    assert "\n" not in str(caught.value)
    after = everything(model, optimizer)
    assert equal(before, after)


def _zero_size():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 0))
    return model, model.parameters(), "1", "has no element"


def _frozen():
    model = small_model()
    model[3].weight.requires_grad_(False)
    return model, model.parameters(), "3", "frozen"


def _tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    return model, model.parameters(), "0", "shared by 0 and 1"


def _twice():
    model = small_model()
    return model, [model[0].weight, model[0].weight], "0", "twice"


def _not_optimized():
    model = small_model()
    return model, model[0].parameters(), "3", "not in the optimizer"


def _integers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].weight = nn.Parameter(torch.ones(3, 4, dtype=torch.int32), requires_grad=False)
    return model, [model[1].weight], "0", "dtype is torch.int32"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize(
    "make",
    [_zero_size, _frozen, _tied, _twice, _not_optimized, _integers],
    ids=lambda f: f.__name__,
)
def test_a_weight_that_cannot_be_masked_is_named_and_nothing_is_changed(make):
    model, parameters, layer, message = make()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    before = everything(model, optimizer)
    with pytest.raises(InputError, match=message):
        sparsify(model, optimizer, "rigl", 0.3, layers=layer)
    assert equal(before, everything(model, optimizer))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["weight", "gradient"])
def test_scores_that_are_not_finite_are_named_and_masks_and_state_stay(bad, what):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = sparsify(model, optimizer, "rigl", 0.3, update_interval=2, total_steps=20)
    train_step(model, optimizer, sparsifier, 0)
    masks, version = sparsifier.masks(), sparsifier.version
    name, layer = next(iter(sparsifier.layers.items()))
    if what == "gradient":
        place = tuple(torch.nonzero(~layer.mask)[0])
        wrong = torch.zeros_like(layer.parameter)
        wrong[place] = bad
        layer.parameter.register_hook(lambda gradient: gradient + wrong)
    optimizer.zero_grad()
    model(torch.randn(4, 3, 7)).square().mean().backward()
    optimizer.step()
    if what == "weight":
        layer.parameter.data[tuple(torch.nonzero(layer.mask)[0])] = bad
    with pytest.raises(InputError, match=rf"step 2: the {what} of layer '{name}' has NaN or inf"):
        sparsifier.step()
    assert sparsifier.masks() == masks and sparsifier.version == version
    assert sparsifier.steps == 1


@pytest.mark.parametrize(
    ("algorithm", "width", "message"),
    [("set", 10, "algorithm is 'Set'"), ("rigl", 12, "layers is")],
)
def test_a_checkpoint_of_another_model_or_algorithm_is_refused_whole(algorithm, width, message):
    def made(algorithm, width):
        model = small_model(width=width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        made = sparsify(model, optimizer, algorithm, 0.3, update_interval=2, total_steps=20)
        train_step(model, optimizer, made, 0)
        return model, optimizer, made

    mine, other = made("rigl", 10), made(algorithm, width)
    before = everything(*mine)
    with pytest.raises(InputError, match=message):
        mine[2].load_state_dict(other[2].state_dict())
    assert equal(before, everything(*mine))
    broken = {k: v for k, v in mine[2].state_dict().items() if k != "steps"}
    with pytest.raises(InputError, match="steps"):
        mine[2].load_state_dict(broken)
    assert equal(before, everything(*mine))
