"""Most progress per time at every decision, from what the environment expects of each layer."""

import torch
from torch import Tensor

from rl.baselines._base import Opponent
from rl.envs.interface import ScheduleEnv

GRID = 33


class HardwareGreedy(Opponent):
    """Dinkelbach's iteration over a grid of densities, layer by layer.

    Exact in the white box, where progress is known; in real runs progress is the share of the
    gradient that lies on active weights.

    Source: Dinkelbach (1967), "On nonlinear fractional programming".
    """

    def wanted(self, env: ScheduleEnv) -> Tensor:
        grid = env.min_density ** torch.linspace(1.0, 0.0, GRID)
        full = [torch.full_like(env.density, float(d)) for d in grid]
        times = torch.stack([env.layer_time(d) for d in full], -1) * env.live[..., None]
        gains = torch.stack([env.layer_progress(d) for d in full], -1) * env.live[..., None]
        ratio = torch.zeros(len(env.density))
        choice = torch.zeros_like(env.density, dtype=torch.long)
        for _ in range(50):
            choice = (gains - ratio[:, None, None] * times).argmax(-1, keepdim=True)
            gain = gains.gather(-1, choice).squeeze(-1).sum(1)
            new = gain / (times.gather(-1, choice).squeeze(-1).sum(1) + env.fixed_time)
            if torch.allclose(new, ratio, rtol=1e-6, atol=0.0):
                break
            ratio = new
        return grid[choice.squeeze(-1)]


OPPONENT = HardwareGreedy
