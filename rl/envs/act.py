"""What the agent does: sparsify, leave or densify each layer by a step."""

from __future__ import annotations

import torch

from hwsim import InputError

SPARSIFY, KEEP, DENSIFY = 0, 1, 2
ACTIONS = ("sparsify", "keep", "densify")


def step_density(
    density: torch.Tensor, action: torch.Tensor, factor: float, low: float, high: float = 1.0,
    points: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Density after one action: times `factor`, unchanged, or divided by it; clamped.

    With `points` it is less by so much, unchanged, or more by so much instead.

    `density` and `action` have the same shape. KEEP returns the very same numbers.

    >>> step_density(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0, 1, 2]), 0.5, 0.1).tolist()
    [0.25, 0.5, 1.0]
    """
    if points:
        moved = (density + points * (action - KEEP)).clamp(low, high)
        return torch.where(action == KEEP, density, moved)
    scale = torch.where(action == SPARSIFY, factor, torch.where(action == DENSIFY, 1 / factor, 1.0))
    moved = (density * scale).clamp(low, high)
    return torch.where(action == KEEP, density, moved)


def toward(
    density: torch.Tensor, wanted: torch.Tensor, factor: float, points: float = 0.0
) -> torch.Tensor:
    """The action that brings each density nearest to the wanted one, measured in log density.

    With `points`, measured in density.
    """
    if points:
        distance = (density - wanted) / points
    else:
        distance = torch.log(density / wanted) / -torch.log(torch.tensor(factor))
    action = torch.full_like(density, KEEP, dtype=torch.long)
    action[distance > 0.5] = SPARSIFY
    action[distance < -0.5] = DENSIFY
    return action


def checked_steps(action: torch.Tensor, live: torch.Tensor | None = None) -> torch.Tensor:
    """`action` as int64, KEEP where `live` is False.

    Raises:
        InputError: it is none of SPARSIFY, KEEP and DENSIFY.

    >>> checked_steps(torch.tensor([0.0, 2.0])).tolist()
    [0, 2]
    """
    good = (action == SPARSIFY) | (action == KEEP) | (action == DENSIFY)
    names = ", ".join(f"{i} ({name})" for i, name in enumerate(ACTIONS))
    _refuse(action, good if live is None else good | ~live, names)
    whole = torch.where(good, action, KEEP).long()
    return whole if live is None else torch.where(live, whole, KEEP)


def checked_densities(
    action: torch.Tensor, low: float, high: float, live: torch.Tensor | None = None
) -> torch.Tensor:
    """`action` within [low, high], 1 where `live` is False; of its own type.

    It is clamped before it becomes a number of weights: a density of 1e30 is the largest allowed.

    Raises:
        InputError: it is not finite.

    >>> checked_densities(torch.tensor([-1.0, 0.5, 1e30]), 0.25, 1.0).tolist()
    [0.25, 0.5, 1.0]
    """
    good = torch.isfinite(action)
    _refuse(action, good if live is None else good | ~live, "a finite density")
    bounded = action.clamp(low, high)
    return bounded if live is None else torch.where(live, bounded, 1.0)


def _refuse(action: torch.Tensor, good: torch.Tensor, allowed: str) -> None:
    if not bool(good.all()):
        place = torch.nonzero(~good)[0]
        value = action[tuple(place)].item()
        raise InputError(
            f"action: value is {value:g} at layer {int(place[-1])}; allowed is {allowed}"
        )
