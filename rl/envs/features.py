"""What is seen of real training runs, in the layout of `rl.envs.observe`."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES, log_share, stack
from rl.runs.prices import PricedSlots

# Logarithms are divided by these, so that what training usually shows lies within ±1.
_GRADIENT_SCALE, _VARIANCE_SCALE, _LIMIT = 3.0, 5.0, 2.0
_SMALL = 1e-12


class Observed(Protocol):
    """What features are made of: `batch` real runs, padded to `width` layers.

    Attributes:
        factor, points: of a step of the action.
        min_density, max_density: ends of every layer's density.
        live: (batch, width) bool.
        nnz, sizes: (batch, width) weights, active and in all; int64.
        state: name → (batch,): progress, rounds, dense_rounds, loss, first_loss, target_loss.
        first_gradient: (batch, width) norms at the start.
        decision_steps: (batch,) training steps from one decision to the next.
    """

    factor: float
    points: float
    min_density: float
    max_density: float
    nnz: Tensor
    sizes: Tensor
    state: dict[str, Tensor]
    first_gradient: Tensor
    decision_steps: Tensor
    priced: PricedSlots

    @property
    def live(self) -> Tensor:
        """(batch, width) bool: layers that exist."""
        ...

    def masses(self, counts: Tensor) -> Tensor:
        """Shares of Σ|g| on the weights active at `counts` (batch, width, c)."""
        ...

    def watched(self) -> Tensor:
        """Gradient norm, activation mean and variance of each layer, (3, batch, width)."""
        ...


def observe(env: Observed, time: Tensor) -> tuple[Tensor, Tensor]:
    """(layers (batch, width, F), whole (batch, G)), float32, of all slots.

    Progress is read off the last gradient: what a layer contributes is the mass |g| on its active
    weights, and what it would contribute at another density that of the weights then active.

    Args:
        time: T̂ / T_dense, (batch,).
    """
    s, live = env.state, env.live
    density = env.nnz / env.sizes
    if env.points:
        lower = (density - env.points).clamp(min=env.min_density)
        upper = (density + env.points).clamp(max=env.max_density).maximum(density)
    else:
        lower = (density * env.factor).clamp(min=env.min_density)
        upper = (density / env.factor).clamp(max=env.max_density).maximum(density)
    least = torch.full_like(density, env.min_density)
    seconds, fewer, more, fewest = env.priced.layer_seconds(
        torch.stack([density, lower, upper, least])
    )
    step = (env.priced.fixed_s + seconds.sum(1))[:, None]
    counts = [(d * env.sizes).round().long() for d in (density, lower, upper, least)]
    mass, mass_fewer, mass_more, mass_fewest, _ = env.masses(
        torch.stack([*counts, env.sizes], -1)
    ).unbind(-1)
    pace = mass.sum(1, keepdim=True).clamp(min=_SMALL)
    log_density = density.log() / -torch.log(torch.tensor(env.min_density))
    gradient, mean, variance = env.watched()
    n = live.sum(1)
    log_gradient = gradient.clamp(min=_SMALL).log()
    average = ((log_gradient * live).sum(1) / n)[:, None]
    layers = stack(
        LAYER_FEATURES,
        log_density=log_density,
        cost_share=log_share(seconds / step),
        time_saved=log_share((seconds - fewer) / step),
        time_added=log_share((more - seconds) / step),
        progress_lost=log_share((mass - mass_fewer) / pace),
        progress_gained=log_share((mass_more - mass) / pace),
        time_over_progress=log_share((seconds - fewest) / step)
        - log_share((mass - mass_fewest) / pace),
        log_gradient=_limited(
            (log_gradient - env.first_gradient.clamp(min=_SMALL).log()) / _GRADIENT_SCALE
        ),
        log_gradient_to_mean=_limited((log_gradient - average) / _GRADIENT_SCALE),
        activation_mean=mean / (mean.square() + variance).clamp(min=_SMALL).sqrt(),
        log_activation_variance=_limited(variance.clamp(min=_SMALL).log() / _VARIANCE_SCALE),
        move_cost=log_share(
            env.priced.update_seconds(density) / (step * env.decision_steps[:, None])
        ),
    )
    whole = stack(
        GLOBAL_FEATURES,
        done=s["progress"],
        log_time=time.log(),
        fixed_share=env.priced.fixed_s / step[:, 0],
        mean_log_density=(log_density * live).sum(1) / n,
        kernel_slope=_limited(env.priced.slope / 2.5),
        elapsed=s["rounds"] / s["dense_rounds"],
        loss_gap=_limited((s["loss"] - s["target_loss"]) / (s["first_loss"] - s["target_loss"])),
    )
    layers = torch.where(live[..., None], layers, 0.0)
    # A run whose loss is no longer finite has features that are not; its numbers stay usable.
    return _usable(layers), _usable(whole)


def _limited(value: Tensor) -> Tensor:
    return value.clamp(-_LIMIT, _LIMIT)


def _usable(value: Tensor) -> Tensor:
    return torch.nan_to_num(value, nan=0.0, posinf=_LIMIT, neginf=-_LIMIT).float()
