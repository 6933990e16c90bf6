"""Speed-ups of a way of choosing, on networks and devices it was not made for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict

from rl.act import toward
from rl.batched import WhiteBoxEnv

Choose = Callable[[WhiteBoxEnv, TensorDict], torch.Tensor]


def speed_ups(env: WhiteBoxEnv, choose: Choose) -> torch.Tensor:
    """T_dense / T of one episode per environment, (batch,); what is left is charged as dense."""
    seen = env.reset()
    running = torch.ones(env.batch_size[0], dtype=torch.bool)
    final = torch.ones(env.batch_size[0])
    while bool(running.any()):
        seen["action"] = choose(env, seen)
        seen = env.step(seen)["next"]
        ended = running & seen["done"][:, 0]
        final[ended] = seen["time"][ended, 0]
        running &= ~ended
    return 1.0 / final


def greedy(env: WhiteBoxEnv, _: TensorDict) -> torch.Tensor:
    """Knows the formula: steps toward the densities with most progress per time."""
    wanted = env.networks.best_density(env.done, env.config.min_density)
    return toward(env.density, wanted, env.config.factor)


def constant(density: float) -> Choose:
    """Steps to one density in every layer and stays."""
    return lambda env, _: toward(
        env.density, torch.full_like(env.density, density), env.config.factor
    )


def dense(env: WhiteBoxEnv, _: TensorDict) -> torch.Tensor:
    """Never sparsifies."""
    return torch.ones_like(env.density, dtype=torch.long)
