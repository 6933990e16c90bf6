"""What every way of training many networks offers: rounds of training, exact masks, a look."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, nn

from sparse_train.population.feed import Feed
from sparse_train.population.train import AdamW
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import Prepared

# What falls as a network learns, among the metrics of `Networks.evaluate`.
PROGRESS = "progress_loss"


@dataclass(frozen=True)
class Recipe:
    """What all networks have in common.

    Attributes:
        task: the data and the loss.
        config: a run as `sparse_train.runs.run` has it, dense under fixed masks; its seed, steps
            and intervals are without effect.
        optimizer: the rule of all weights; `config` holds the same numbers but for the power of
            the density.
        build: seed → a new network with that seed's first weights.
    """

    task: Prepared
    config: TrainConfig
    optimizer: AdamW
    build: Callable[[int], nn.Module]

    @cached_property
    def feed(self) -> Feed:
        """Training batches by seed and step, kept for all networks of the recipe."""
        return Feed(self.task, self.config.batch_size)


class Networks(ABC):
    """`size` networks of one architecture, each with weights, masks, moments and data of its own.

    What a network does depends on its seed and its own masks alone, not on its neighbours. Rows
    are int64 tensors (n,).

    Attributes:
        chunk: how many are best trained side by side.
        seeds: of each network.
        names, shapes: of the masked layers; shapes are (n_out, n_in).
        sizes: (layers,) weights of each, int64.
        nnz: (size, layers) active weights, int64.
        activations: (size, layers, 2) mean and variance of each masked layer's output in the last
            step that was watched.
    """

    chunk: ClassVar[int] = 1
    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    sizes: Tensor
    nnz: Tensor
    activations: Tensor

    def __init__(self, recipe: Recipe, size: int) -> None:
        self.recipe, self.size = recipe, size
        self.seeds = [0] * size

    @abstractmethod
    def begin(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """New dense networks. Their first gradient is looked at; no step is made."""

    @abstractmethod
    def train(self, rows: Tensor, steps: int) -> None:
        """So many steps of each; gradients and activations of the last one are kept."""

    @abstractmethod
    def evaluate(self, rows: Tensor, split: str = "validation") -> dict[str, Tensor]:
        """The task's metrics, (n,) each, and PROGRESS; NaN where training has diverged."""

    @abstractmethod
    def update(
        self, rows: Tensor, nnz: Tensor, *, drop_fraction: float, drop: str, grow: str,
        restore: bool = False,
    ) -> None:  # fmt: skip
        """New masks with exactly `nnz` (n, layers) weights, as `Population.update` has it."""

    @abstractmethod
    def gradient_norms(self, rows: Tensor) -> Tensor:
        """2-norm of the last gradient kept over each layer's active weights, (n, layers)."""

    @abstractmethod
    def gradient_masses(self, rows: Tensor, counts: Tensor) -> Tensor:
        """As `Population.gradient_masses`: (n, layers, c) float64."""

    @abstractmethod
    def take(self, row: int) -> dict[str, Any]:
        """A copy of all that one network is: tensors, numbers and strings."""

    @abstractmethod
    def put(self, row: int, seed: int, network: dict[str, Any]) -> None:
        """A network from `take`, of this seed, into a row."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Of all networks but their seeds."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], seeds: Sequence[int]) -> None:
        """Raises an InputError if the state is that of another architecture or size."""
