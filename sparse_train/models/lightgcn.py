"""LightGCN: vectors of users and items, averaged with those of their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.models._family import Family, rounded_width
from sparse_train.models.factorization import Factorization, FactorizationOutput, ranked
from sparse_train.weightless import weightless

# Width of the vectors and layers of propagation; for `build`, of 1,000 users, 2,000 items and 20
# items taken by each user.
PRESETS = {"small": (64, 3), "medium": (256, 3)}


class LightGCN(Factorization):
    """Score of (user, item) = product of their propagated vectors.

    The graph has a node for each user and item and an edge for each pair. A layer of propagation is
    E ← D^−½ A D^−½ E, with A the adjacency and D the degrees; the vectors that are compared are
    the mean of the `layers` + 1 results, the first being the tables themselves. The tables are all
    that is learnt, so that masks reach every weight, as in `Factorization`.

    Args:
        n_users, n_items, width: of the two tables.
        pairs: users and items, int64 (pairs,) each: who took what in training, no pair twice.
        layers: how often the vectors are propagated.

    Source: He et al. (2020), "LightGCN: simplifying and powering graph convolution network for
    recommendation" (SIGIR), equations 3 to 8 with α_k = 1/(K+1).
    """

    def __init__(
        self, n_users: int, n_items: int, width: int, pairs: tuple[np.ndarray, np.ndarray],
        layers: int = 3,
    ) -> None:  # fmt: skip
        super().__init__(n_users, n_items, width)
        check_integer("layers", layers, 1)
        users, items = pairs
        if not len(users) or max(int(users.max()) - n_users, int(items.max()) - n_items) >= 0:
            raise InputError(
                f"pairs: {len(users)} are given; allowed is at least one, of users below {n_users} "
                f"and items below {n_items}"
            )
        self.layers = layers
        neighbours, starts, shares = _graph(users, items, n_users, n_items)
        # They come of the data, which a run's digest names: no part of its state.
        self.register_buffer("neighbours", torch.from_numpy(neighbours), persistent=False)
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares), persistent=False)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors of all users and all items, (users, width) and (items, width)."""
        own = torch.cat([self.users.weight, self.items.weight])
        total = own
        for _ in range(self.layers):
            own = _Propagate.apply(own, self.neighbours, self.starts, self.shares)
            total = total + own
        mean = total / (self.layers + 1)
        n = self.users.num_embeddings
        return mean[:n], mean[n:]

    def forward(self, users: Tensor, positives: Tensor, negatives: Tensor) -> FactorizationOutput:
        wanted, items = self.tables()
        return ranked(wanted[users], items[positives], items[negatives])

    def scores(self, users: Tensor) -> Tensor:
        wanted, items = self.tables()
        return wanted[users] @ items.T


class _Propagate(torch.autograd.Function):
    """Y = Â X with Â symmetric, so that the gradient is propagated in the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Tensor, starts: Tensor, shares: Tensor) -> Tensor:
        ctx.save_for_backward(neighbours, starts, shares)
        return _weighted_sums(x, neighbours, starts, shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore
        return _weighted_sums(given.contiguous(), *ctx.saved_tensors), None, None, None


def _weighted_sums(x: Tensor, neighbours: Tensor, starts: Tensor, shares: Tensor) -> Tensor:
    """(nodes, width): of each node, the sum over its neighbours of share · vector."""
    return F.embedding_bag(
        neighbours, x, starts, mode="sum", per_sample_weights=shares, include_last_offset=True
    )


def _graph(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all nodes, users first: neighbours (2·pairs), where each node's begin (nodes + 1), and
    the entries of D^−½ A D^−½ (2·pairs), float32."""
    nodes = n_users + n_items
    near = np.concatenate([users, items + n_users])
    far = np.concatenate([items + n_users, users])
    order = np.lexsort((far, near))
    near, far = near[order], far[order]
    degrees = np.bincount(near, minlength=nodes)
    shares = 1 / np.sqrt(degrees[near] * degrees[far].astype(np.float64))
    starts = np.concatenate([[0], np.cumsum(degrees)])
    return far.astype(np.int64), starts.astype(np.int64), shares.astype(np.float32)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    width, layers = PRESETS[preset]
    width = rounded_width(share, width, 1)
    users = np.repeat(np.arange(1000), 20)
    items = (users * 7 + np.tile(np.arange(20), 1000) * 97) % 2000
    index = torch.zeros(batch_size, dtype=torch.long, device="meta")
    with weightless():
        model = LightGCN(1000, 2000, width, (users, items), layers)
    return model.to("meta"), (index, index, index)


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset][0])
