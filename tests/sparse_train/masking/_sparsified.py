"""A small model, its training, and what must hold in it."""

import torch
from torch import nn

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 3)
    )


def train(model, optimizer, sparsifier, steps, seed=1, micro=1):
    torch.manual_seed(seed)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(micro):
            loss = model(torch.randn(6, 12)).square().mean() / micro
            loss.backward()
        optimizer.step()
        sparsifier.step()
        losses.append(loss.item())
    return losses


def check_state(sparsifier, optimizer):
    """Weights, gradients and moments are zero where inactive."""
    for layer in sparsifier.layers.values():
        off = ~layer.mask
        assert not layer.parameter[off].any()
        if layer.parameter.grad is not None and not sparsifier.is_update_step(sparsifier.steps):
            assert not layer.parameter.grad[off].any()
        for value in optimizer.state[layer.parameter].values():
            if torch.is_tensor(value) and value.shape == layer.parameter.shape:
                assert not value[off].any()
