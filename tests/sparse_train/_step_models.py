"""Models whose steps are observed."""

import torch
import torch.nn.functional as F
from torch import nn


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, groups=4), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, dilation=2), nn.GELU(),
            nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ConvTranspose2d(8, 8, 3, groups=2),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Odd(nn.Module):
    """Tied weights, a reused module, functional linears, MultiheadAttention, recurrence."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.twice = nn.Linear(16, 16)
        self.stored = nn.Parameter(torch.randn(16, 24))  # used as x @ W, not x @ Wᵀ
        self.left = nn.Parameter(torch.randn(16, 24))  # used as W @ x
        self.mha = nn.MultiheadAttention(16, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(16, 2, batch_first=True)
        self.rnn = nn.LSTM(16, 16, batch_first=True)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, ids):
        x = self.tokens(ids)
        x = self.twice(F.relu(self.twice(x)))
        x = x + self.mha(x, x, x)[0]
        other = x.flip(1)
        x = x + self.cross(x, other, other)[0]
        x = self.frozen(self.rnn(x)[0])
        x = torch.einsum("bsi,oi->bso", x @ self.stored, self.left)
        x = (self.left @ (x @ self.stored).transpose(1, 2)).transpose(1, 2)
        return F.linear(x, self.tokens.weight)
