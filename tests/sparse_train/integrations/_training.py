"""The training that every loop and framework is given: data, net, settings, and what must hold."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from sparse_train import sparsify
from tests.sparse_train.loops._loops import net

STEPS = 30
SETTINGS = {"algorithm": "rigl", "density": 0.3, "update_interval": 3, "end_step": 28}


class Data(Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, i):
        return {"x": torch.randn(12, generator=torch.Generator().manual_seed(i))}


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.body = net(seed)

    def forward(self, x):
        return {"loss": (self.body(x) - 1).square().mean()}


def loader():
    return DataLoader(Data(), 4)


def start(seed=0):
    model = Net(seed)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def in_plain_loop(batches=None):
    model, optimizer = start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    for batch in batches or loader():
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step()
        sparsifier.step()
    return model, sparsifier


def same(one, other, *, exact=True):
    masks, others = one[1].masks(), other[1].masks()
    assert [n.removeprefix("net.") for n in others] == list(masks) and other[1].version >= 5
    assert list(masks.values()) == list(others.values())
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def half_loader():
    return DataLoader(Subset(Data(), range(2 * STEPS)), 4)
