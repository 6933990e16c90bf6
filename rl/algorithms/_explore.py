"""How a policy that names densities tries others: in log density, smoothly over a run."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.distributions import Distribution, Normal

from rl.envs.observe import GLOBAL_FEATURES

SHARED = 0.5  # share of the noise's variance that all layers of a network have in common


class LayerwiseDensity(Distribution):
    """A log-normal density per layer; the log-probability is the sum over the layers.

    Depth is log density over log least density: 0 is dense, 1 the least density. A density may
    come out above 1 or below the least one; environments clamp it.

    Args:
        depth, spread: mean and standard deviation of depth, (…, layers). Padding has spread 0 and
            is dense, without any part in probability or entropy.
        log_least: (…, layers) logarithm of the least density.
    """

    arg_constraints = {}  # noqa: RUF012  as its base class has it

    def __init__(self, depth: Tensor, spread: Tensor, log_least: Tensor) -> None:
        self.depth, self.spread, self.log_least = depth, spread, log_least
        self._live = spread > 0
        self._normal = Normal(depth, torch.where(self._live, spread, 1.0), validate_args=False)
        super().__init__(depth.shape[:-1], depth.shape[-1:], validate_args=False)

    def densities(self, noise: Tensor) -> Tensor:
        """Densities at `noise` standard deviations, (…, layers)."""
        return torch.exp((self.depth + self.spread * noise) * self.log_least)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.densities(torch.randn(*sample_shape, *self.depth.shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of depth, not of density: the two differ by what no weight can change."""
        own = self._normal.log_prob(value.log() / self.log_least)
        return torch.where(self._live, own, 0.0).sum(-1)

    def entropy(self) -> Tensor:
        return torch.where(self._live, self._normal.entropy(), 0.0).sum(-1)

    @property
    def deterministic_sample(self) -> Tensor:
        """The densities at no deviation."""
        return self.densities(torch.zeros(()))

    mean = mode = deterministic_sample


class SmoothNoise(TensorDictModuleBase):
    """Draws densities whose noise is a smooth curve over a run's progress, drawn for each run.

    Noise of each decision on its own would drop and regrow weights at every round, and what is
    learnt that way says little of a schedule that does not. At each decision it is a standard
    normal number; between `knots` knots, even over progress, it is interpolated (one knot: a run
    keeps its noise), and layers share half of its variance. Draws from torch's own stream, as much
    whichever runs begin.

    Source: the noise of an episode as a function of its state is that of Raffin et al. (2022),
    "Smooth exploration for robotic reinforcement learning"; the function here is another.
    """

    in_keys: ClassVar[list[str]] = ["depth", "spread", "log_least", "whole"]
    out_keys: ClassVar[list[str]] = ["action", "action_log_prob"]

    def __init__(self, knots: int = 4) -> None:
        super().__init__()
        self.knots = knots
        self._knots: Tensor | None = None  # (…, layers, knots)
        self._before: Tensor | None = None  # (…,) when it was asked last

    def forward(self, tensordict: TensorDict) -> TensorDict:
        whole = tensordict["whole"]
        elapsed, done = (whole[..., GLOBAL_FEATURES.index(name)] for name in ("elapsed", "done"))
        made = LayerwiseDensity(*(tensordict[key] for key in self.in_keys[:3]))
        fresh = self._draw(made.depth.shape)
        if self._knots is None or self._before is None or self._knots.shape != fresh.shape:
            self._knots = fresh
        else:
            begun = elapsed <= self._before
            self._knots = torch.where(begun[..., None, None], fresh, self._knots)
        self._before = elapsed.clone()
        action = made.densities(_between(self._knots, done))
        tensordict["action"] = action
        tensordict["action_log_prob"] = made.log_prob(action)
        return tensordict

    def _draw(self, shape: torch.Size) -> Tensor:
        own = torch.randn(*shape, self.knots)
        common = torch.randn(*shape[:-1], 1, self.knots)
        return math.sqrt(1 - SHARED) * own + math.sqrt(SHARED) * common


def _between(knots: Tensor, done: Tensor) -> Tensor:
    """Standard normal numbers (…, layers) at progress `done` (…,), from those at the knots."""
    count = knots.shape[-1]
    place = done.clamp(0.0, 1.0)[..., None, None] * (count - 1)
    weight = (1 - (place - torch.arange(count)).abs()).clamp(min=0.0)  # (…, 1, knots)
    weight = weight / weight.square().sum(-1, keepdim=True).sqrt()
    return (knots * weight).sum(-1)
