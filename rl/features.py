"""What is seen of real training runs, in the layout of `rl.observe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rl.observe import GLOBAL_FEATURES, LAYER_FEATURES, log_share, stack

if TYPE_CHECKING:
    from rl.training import SparseTrainingEnv

# Logarithms are divided by these, so that what training usually shows lies within ±1.
_GRADIENT_SCALE, _VARIANCE_SCALE, _LIMIT = 3.0, 5.0, 2.0
_SMALL = 1e-12


def observe(env: SparseTrainingEnv, time: Tensor) -> tuple[Tensor, Tensor]:
    """(layers (batch, width, F), whole (batch, G)), float32, of all slots.

    Progress is read off the last gradient: what a layer contributes is the mass |g| on its active
    weights, and what it would contribute at another density that of the weights then active.

    Args:
        time: T̂ / T_dense, (batch,).
    """
    c, s, live = env.config, env.state, env.live
    density = env.nnz / env.sizes
    lower = (density * c.factor).clamp(min=c.min_density)
    upper = (density / c.factor).clamp(max=1.0)
    least = torch.full_like(density, c.min_density)
    seconds, fewer, more, fewest = env.priced.layer_seconds(
        torch.stack([density, lower, upper, least])
    )
    step = (env.priced.fixed_s + seconds.sum(1))[:, None]
    counts = [(d * env.sizes).round().long() for d in (density, lower, upper, least)]
    mass, mass_fewer, mass_more, mass_fewest, _ = env.masses(
        torch.stack([*counts, env.sizes], -1)
    ).unbind(-1)
    pace = mass.sum(1, keepdim=True).clamp(min=_SMALL)
    log_density = density.log() / -torch.log(torch.tensor(c.min_density))
    gradient, mean, variance = _watched(env)
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


def _watched(env: SparseTrainingEnv) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient norm, activation mean and variance of each layer, (batch, width), float64."""
    found = torch.ones(3, *env.live.shape, dtype=torch.float64)
    for group in env.groups:
        rows = torch.arange(len(group.places))
        found[0, group.places, : group.layers] = group.population.gradient_norms(rows).double()
        seen = group.population.activations.double()
        found[1, group.places, : group.layers] = seen[..., 0]
        found[2, group.places, : group.layers] = seen[..., 1]
    return found[0], found[1], found[2]


def _limited(value: Tensor) -> Tensor:
    return value.clamp(-_LIMIT, _LIMIT)


def _usable(value: Tensor) -> Tensor:
    return torch.nan_to_num(value, nan=0.0, posinf=_LIMIT, neginf=-_LIMIT).float()
