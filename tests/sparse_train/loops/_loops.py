"""What the tests of training loops share: a net, a batch of each step, and what must hold."""

import torch
from torch import nn

from sparse_train import sparsify

torch.set_num_threads(1)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 3)
    )


def batch(step):
    return torch.randn(6, 12, generator=torch.Generator().manual_seed(100 + step))


def loss_of(model, step):
    return (model(batch(step)) - 1).square().mean()


def made(optimizer=None, algorithm="rigl", model=None, **options):
    model = net() if model is None else model
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    elif callable(optimizer):
        optimizer = optimizer(model.parameters())
    settings = {"density": 0.3, "update_interval": 3, "total_steps": 60, **options}
    return model, optimizer, sparsify(model, optimizer, algorithm, **settings)


def plain(model, optimizer, sparsifier, steps, start=0):
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        sparsifier.step()


def same(one, other):
    """Equal masks, and weights to the bit."""
    assert one[2].masks() == other[2].masks()
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(a, b)


def whole(sparsifier, *optimizers):
    """Weights and states are zero where inactive."""
    for layer in sparsifier.layers.values():
        off = ~layer.mask
        assert not layer.parameter[off].any(), layer.name
        for optimizer in optimizers:
            for key, value in optimizer.state[layer.parameter].items():
                if torch.is_tensor(value) and value.shape == layer.parameter.shape:
                    assert not value[off].any(), (layer.name, key)
