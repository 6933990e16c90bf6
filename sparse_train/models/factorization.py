"""Matrix factorisation: a vector for each user and each item, and their product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer
from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

# Width of the vectors; for `build`, of 1,000 users and 2,000 items.
PRESETS = {"small": 64, "medium": 256}
_STD = 0.1


class FactorizationOutput(NamedTuple):
    """margins (batch,): score of the item taken less that of another; their loss, a scalar."""

    loss: Tensor
    margins: Tensor


class Factorization(nn.Module):
    """Score of (user, item) = product of their vectors.

    Vectors start as N(0, 0.1²). There is no bias of an item, so that all that the model knows lies
    in two tables, which masks can reach and whose nonzeros are its whole budget.

    Source: Koren et al. (2009), "Matrix factorization techniques for recommender systems".
    """

    def __init__(self, n_users: int, n_items: int, width: int) -> None:
        super().__init__()
        for name, value in (("n_users", n_users), ("n_items", n_items), ("width", width)):
            check_integer(name, value, 1)
        self.users = nn.Embedding(n_users, width)
        self.items = nn.Embedding(n_items, width)
        nn.init.normal_(self.users.weight, std=_STD)
        nn.init.normal_(self.items.weight, std=_STD)

    def forward(self, users: Tensor, positives: Tensor, negatives: Tensor) -> FactorizationOutput:
        """Bayesian personalised ranking: the item taken should score above another.

        Args:
            users: (batch,) int64.
            positives: (batch,) int64, items that they took.
            negatives: (batch,) int64, items that they did not.

        Source: Rendle et al. (2009), "BPR", section 4.1.
        """
        return ranked(self.users(users), self.items(positives), self.items(negatives))

    def scores(self, users: Tensor) -> Tensor:
        """(batch, items): of all items."""
        return self.users(users) @ self.items.weight.T


def ranked(users: Tensor, positives: Tensor, negatives: Tensor) -> FactorizationOutput:
    """The loss of Bayesian personalised ranking, of vectors (batch, width) each."""
    margins = (users * (positives - negatives)).sum(-1)
    return FactorizationOutput(F.softplus(-margins).mean(), margins)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[Factorization, tuple[Tensor, Tensor, Tensor]]:
    index = torch.zeros(batch_size, dtype=torch.long)
    with weightless():
        return Factorization(1000, 2000, rounded_width(share, PRESETS[preset], 1)), (
            index,
            index,
            index,
        )


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset])
