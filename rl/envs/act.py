"""What the agent does: sparsify, leave or densify each layer by a step."""

from __future__ import annotations

import torch

SPARSIFY, KEEP, DENSIFY = 0, 1, 2
ACTIONS = ("sparsify", "keep", "densify")


def step_density(
    density: torch.Tensor, action: torch.Tensor, factor: float, low: float, high: float = 1.0
) -> torch.Tensor:
    """Density after one action: times `factor`, unchanged, or divided by it; clamped.

    `density` and `action` have the same shape. KEEP returns the very same numbers.

    >>> step_density(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0, 1, 2]), 0.5, 0.1).tolist()
    [0.25, 0.5, 1.0]
    """
    scale = torch.where(action == SPARSIFY, factor, torch.where(action == DENSIFY, 1 / factor, 1.0))
    moved = (density * scale).clamp(low, high)
    return torch.where(action == KEEP, density, moved)


def toward(density: torch.Tensor, wanted: torch.Tensor, factor: float) -> torch.Tensor:
    """The action that brings each density nearest to the wanted one, measured in log density."""
    distance = torch.log(density / wanted) / -torch.log(torch.tensor(factor))
    action = torch.full_like(density, KEEP, dtype=torch.long)
    action[distance > 0.5] = SPARSIFY
    action[distance < -0.5] = DENSIFY
    return action
