"""One by one: each network is a run of its own, for any task that `nettime train` can train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import InputError, unknown
from sparse_train.networks._base import Networks, Recipe
from sparse_train.networks._network import Network
from sparse_train.population.train import DROPS, GROWTHS, left_of
from sparse_train.tasks import stream

# First numbers of the keys of random streams.
_DROP, _GROW = 11, 12


class OneByOne(Networks):
    """Each network is a `sparse_train.runs.run.Run`: slower by far, but with data of its own.

    Batches may depend on the network (an agent's experience), the model may keep statistics
    (BatchNorm) and draw random numbers (dropout), and what is evaluated may be more than a mean
    over batches.

    Raises:
        InputError: the recipe's config stands for another model than its `build`.
    """

    def __init__(self, recipe: Recipe, size: int) -> None:
        super().__init__(recipe, size)
        first = Network(recipe, 0)
        wanted, made = _shapes(recipe.build(0)), _shapes(first.run.model)
        if wanted != made:
            raise InputError(
                f"model: {recipe.config.model} is built with weights {wanted}, and nettime train "
                f"builds {made}; allowed one by one is a model that both build alike"
            )
        self._networks = [first] * size  # Until each has begun.
        layers = first.layers
        self.names = tuple(layer.name for layer in layers)
        self.shapes = tuple(layer.shape for layer in layers)
        self.sizes = torch.tensor(first.sizes)
        self.nnz = self.sizes.expand(size, -1).clone()
        self._ends = self.sizes.cumsum(0)

    @property
    def activations(self) -> Tensor:  # type: ignore[override]
        """(size, layers, 2) mean and variance of what layers gave."""
        return torch.stack([network.seen for network in self._networks])

    def begin(self, rows: Tensor, seeds: Sequence[int]) -> None:
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self.seeds[row] = seed
            self._networks[row] = Network(self.recipe, seed)
            self._networks[row].look()
            self.nnz[row] = self.sizes

    def train(self, rows: Tensor, steps: int) -> None:
        for network in self._of(rows):
            network.train(steps)

    def evaluate(self, rows: Tensor, split: str = "validation") -> dict[str, Tensor]:
        found = [network.evaluate(split) for network in self._of(rows)]
        return {
            name: torch.tensor([one[name] for one in found], dtype=torch.float64)
            for name in found[0]
        }

    def update(
        self, rows: Tensor, nnz: Tensor, *, drop_fraction: float, drop: str, grow: str,
        restore: bool = False,
    ) -> None:  # fmt: skip
        if restore:
            raise InputError(
                "restore: networks that are trained one by one forget what is dropped; allowed is "
                "False"
            )
        if drop not in DROPS:
            raise InputError(unknown("drop criterion", drop, DROPS))
        if grow not in GROWTHS:
            raise InputError(unknown("growth criterion", grow, GROWTHS))
        from sparse_train.population.passes import redraw

        kept = left_of(self.nnz[rows], nnz, drop_fraction)
        for row, keep, add in zip(rows.tolist(), kept, nnz - kept, strict=True):
            network = self._networks[row]
            mask = network.mask()[None]
            scores = {
                "magnitude": lambda _, one=network: _usable(one.magnitudes()),
                "gradient": lambda _, one=network: _usable(one.gradients.abs()),
                "random": lambda purpose, one=network: _random(one, purpose),
            }
            redraw(
                np.array([0]), scores[drop](_DROP), scores[grow](_GROW), mask.numpy(),
                (self._ends - self.sizes).numpy(), self._ends.numpy(), keep[None].numpy(),
                add[None].numpy(),
            )  # fmt: skip
            network.set_mask(mask[0])
        self.nnz[rows] = nnz

    def gradient_norms(self, rows: Tensor) -> Tensor:
        active = torch.stack([one.gradients * one.mask() for one in self._of(rows)])
        parts = active.split(self.sizes.tolist(), 1)
        return torch.stack([part.square().sum(1).sqrt() for part in parts], 1)

    def gradient_masses(self, rows: Tensor, counts: Tensor) -> Tensor:
        from sparse_train.population.passes import gradient_masses

        networks = self._of(rows)
        return torch.from_numpy(
            gradient_masses(
                np.arange(len(networks)),
                np.concatenate([_usable(one.magnitudes()) for one in networks]),
                np.concatenate([_usable(one.gradients.abs()) for one in networks]),
                torch.stack([one.mask() for one in networks]).numpy(),
                (self._ends - self.sizes).numpy(), self._ends.numpy(), counts.numpy(),
            )
        )  # fmt: skip

    def take(self, row: int) -> dict[str, Any]:
        return self._networks[row].state_dict()

    def put(self, row: int, seed: int, network: dict[str, Any]) -> None:
        own = Network(self.recipe, seed)
        own.load_state_dict(network)
        self._networks[row], self.seeds[row] = own, seed
        parts = own.mask().split(self.sizes.tolist())
        self.nnz[row] = torch.stack([part.sum(dtype=torch.long) for part in parts])

    def state_dict(self) -> dict[str, Any]:
        return {str(row): self.take(row) for row in range(self.size)}

    def load_state_dict(self, state: dict[str, Any], seeds: Sequence[int]) -> None:
        weights = int(self.sizes.sum())
        found = [len(one["gradients"]) for one in state.values()]
        if found != [weights] * self.size:
            raise InputError(
                f"state of the networks: masked weights are {found}; allowed is {weights} for each "
                f"of {self.size}"
            )
        for row, seed in enumerate(seeds):
            self.put(row, seed, state[str(row)])

    def _of(self, rows: Tensor) -> list[Network]:
        return [self._networks[row] for row in rows.tolist()]


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters()]


def _usable(values: Tensor) -> np.ndarray:
    """(1, n), NaN as 0."""
    return torch.nan_to_num(values)[None].numpy()


def _random(network: Network, purpose: int) -> np.ndarray:
    rng = stream(purpose, network.seed, network.run.step)
    return rng.random((1, len(network.gradients)), dtype=np.float32)


NETWORKS = OneByOne
