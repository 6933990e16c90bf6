"""Algorithm 1's second half: whole episodes of a way of choosing, agent or opponent.

Source: Tessera et al. (2022), "Just-in-time sparsity: learning dynamic sparsity schedules".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from rl.envs.act import toward
from rl.envs.interface import Context, ScheduleEnv
from rl.envs.whitebox import WhiteBoxEnv

Choose = Callable[[ScheduleEnv, TensorDict], Tensor]


@dataclass(frozen=True)
class Episodes:
    """One episode of each slot.

    Attributes:
        time: (batch,) T / T_dense; what is left at the end of a budget is charged as dense.
        total: (batch,) sum of rewards.
        decisions: (batch,) made.
        density: (decisions, batch, width) in force after each decision; that of the last one
            after an episode's end.
        spent, progress: (decisions + 1, batch) share of the dense time that is spent, and of the
            dense way that is behind, before the first decision and after each.
        live: (batch, width).
    """

    time: Tensor
    total: Tensor
    decisions: Tensor
    density: Tensor
    spent: Tensor
    progress: Tensor
    live: Tensor

    @property
    def speed_up(self) -> Tensor:
        """(batch,) T_dense / T."""
        return 1.0 / self.time

    @property
    def reached(self) -> Tensor:
        """(batch,) bool: whether the target was reached within the budget."""
        return self.progress[-1] >= 1.0

    @property
    def _there(self) -> Tensor:
        """(decisions, batch, width) bool: layers that exist, in decisions that were made."""
        made = torch.arange(len(self.density))[:, None] < self.decisions
        return made[..., None] & self.live

    @property
    def mean_density(self) -> float:
        """Over layers, decisions and episodes."""
        return float(self.density[self._there].double().mean())

    @property
    def switching(self) -> float:
        """Share of decisions in which a layer's density changes, over layers and episodes."""
        before = torch.cat([torch.ones_like(self.density[:1]), self.density[:-1]])
        changed = (self.density - before).abs() > 1e-6
        return float((changed & self._there).sum() / self._there.sum())


def play(env: ScheduleEnv, choose: Choose, contexts: Sequence[Context] | None = None) -> Episodes:
    """One episode per slot, in the given contexts or in drawn ones."""
    seen = env.reset() if contexts is None else env.reset(contexts=list(contexts))
    b = env.batch_size[0]
    running = torch.ones(b, dtype=torch.bool)
    time, total = seen["time"][:, 0].clone(), torch.zeros(b)
    decisions = torch.zeros(b, dtype=torch.long)
    progress = env.progress.clone()
    density, paths = [], [progress]
    spent = [time - (1.0 - progress)]
    while bool(running.any()):
        seen["action"] = choose(env, seen)
        seen = env.step(seen)["next"]
        # What a slot does after its episode's end is not part of it.
        time = torch.where(running, seen["time"][:, 0], time)
        progress = torch.where(running, env.progress, progress)
        total += torch.where(running, seen["reward"][:, 0], 0.0)
        decisions += running
        now = seen["density"].clone()
        density.append(torch.where(running[:, None], now, density[-1]) if density else now)
        paths.append(progress)
        spent.append(time - (1.0 - progress))
        running &= ~seen["done"][:, 0]
    return Episodes(
        time, total, decisions, torch.stack(density), torch.stack(spent), torch.stack(paths),
        env.live.clone(),
    )  # fmt: skip


def speed_ups(env: ScheduleEnv, choose: Choose) -> Tensor:
    """T_dense / T of one episode per slot, (batch,); what is left is charged as dense."""
    return play(env, choose).speed_up


def greedy(env: WhiteBoxEnv, _: TensorDict) -> Tensor:
    """Knows the formula: steps toward the densities with most progress per time."""
    wanted = env.networks.best_density(env.done, env.config.min_density)
    return toward(env.density, wanted, env.config.factor)


def constant(density: float) -> Choose:
    """Steps to one density in every layer and stays."""
    return lambda env, _: env.action_for(torch.full_like(env.density, density))


def dense(env: ScheduleEnv, _: TensorDict) -> Tensor:
    """Never sparsifies."""
    return env.action_for(torch.ones_like(env.density))
