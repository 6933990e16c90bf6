"""What the agent sees: fixed, scale-free features, the same for every network and device.

No running statistics and no normalisation over the network's own layers: a policy that learned on
one network must read another one in the same units.
"""

from __future__ import annotations

import torch

LAYER_FEATURES = (
    "log_density",
    "cost_share",
    "time_saved",
    "time_added",
    "progress_lost",
    "progress_gained",
    "time_over_progress",
    "log_gradient",
    "log_gradient_to_mean",
    "activation_mean",
    "log_activation_variance",
    "move_cost",
)
GLOBAL_FEATURES = (
    "done", "log_time", "fixed_share", "mean_log_density", "kernel_slope", "elapsed", "loss_gap",
)  # fmt: skip
HARDWARE_LAYER_FEATURES = (
    "cost_share", "time_saved", "time_added", "time_over_progress", "move_cost",
)  # fmt: skip
HARDWARE_GLOBAL_FEATURES = ("log_time", "fixed_share", "kernel_slope")
FLOOR = 1e-4  # shares below this are all the same to the agent


def log_share(value: torch.Tensor) -> torch.Tensor:
    """log of a share, from FLOOR to 1, onto [−1, 0]."""
    scale = -torch.log(torch.tensor(FLOOR))
    return torch.log(value.clamp(min=FLOOR)) / scale


def stack(names: tuple[str, ...], **features: torch.Tensor) -> torch.Tensor:
    """Features in the order of `names` along a new last dimension; 0 where one is not given."""
    if extra := set(features) - set(names):
        raise ValueError(f"features {sorted(extra)} are not among {names}")
    like = next(iter(features.values()))
    return torch.stack([features.get(name, torch.zeros_like(like)) for name in names], -1)
