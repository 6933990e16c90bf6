"""Which moves are carried out: a move drops and regrows weights, and updates a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from rl.envs.act import KEEP, step_density
from rl.envs.features import Observed

FREE, PAYS = "free", "pays"
MOVES = (FREE, PAYS)
_SMALL = 1e-12


def near(nnz: Tensor, sizes: Tensor, density: Tensor, share: float) -> Tensor:
    """Layers whose own density lies within `share` of the one that is named, dense ones apart.

    >>> one = torch.tensor([[10, 10]])
    >>> near(one, 2 * one, torch.tensor([[0.55, 0.8]]), 0.25).tolist()
    [[True, False]]
    """
    ratio = density.double() * sizes / nnz
    return (torch.maximum(ratio, 1 / ratio) < 1 + share) & (density < 1)


def asked(env: Observed, action: Tensor, mode: str, *, hold: float = 0.0) -> Tensor:
    """(batch, width) weights of each layer that an action asks for, at least the least density's.

    Where the action is KEEP, or names a density that `hold` holds for the layer's own, they are
    those that there are.
    """
    if mode == "density":
        wanted, still = action, near(env.nnz, env.sizes, action, hold)
    else:
        density = env.nnz / env.sizes
        wanted = step_density(density, action, env.factor, env.min_density, points=env.points)
        still = action == KEEP
    return torch.where(still, env.nnz, bounded(env, wanted))


def bounded(env: Observed, density: Tensor) -> Tensor:
    """Whole numbers of weights of a density, at least 1 and at least those of the least."""
    least = torch.ceil(env.sizes * env.min_density).long().clamp(min=1)
    return torch.maximum(torch.round(env.sizes * density.double()).long(), least)


def paying(env: Observed, wanted: Tensor, steps_left: Tensor) -> Tensor:
    """(batch, width) bool: whether a move can bring more in the rest of the run than it costs.

    It brings the time that a step saves, or the share of the gradient's mass that it gains, in
    time of a step, for all steps that dense training would need from here; it costs an update of
    the layer's mask. What a move loses on the other side is left to who chooses: this is an upper
    bound, so that only moves that cannot pay are held back.

    Args:
        wanted: (batch, width) weights of each layer after the move.
        steps_left: (batch,).
    """
    seconds, after = env.priced.layer_seconds(
        torch.stack([env.nnz / env.sizes, wanted / env.sizes])
    )
    step = (env.priced.fixed_s + seconds.sum(1))[:, None]
    mass, mass_after, _ = env.masses(torch.stack([env.nnz, wanted, env.sizes], -1)).unbind(-1)
    pace = mass.sum(1, keepdim=True).clamp(min=_SMALL)
    worth = torch.maximum(seconds - after, (mass_after - mass) / pace * step)
    cost = env.priced.update_seconds(wanted / env.sizes)
    return worth * steps_left[:, None] > cost
