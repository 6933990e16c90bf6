"""What the two Gymnasium forms share: settings, spaces, contexts, what is told of a slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict

from hwsim import InputError
from hwsim.errors import unknown
from rl.envs.act import checked_densities, checked_steps
from rl.envs.interface import Context
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig

OPTIONS = ("network", "task", "device", "target", "seed", "reference")
RENDER_MODES = ("ansi", "rgb_array")
_OBSERVED = ("layers", "whole", "live", "density", "time")


def settings(config: TrainingConfig | None, changes: Mapping[str, Any]) -> TrainingConfig:
    """`config` with some fields replaced.

    Raises:
        InputError: an unknown one (the valid ones are listed), or a value that is not allowed.
    """
    valid = tuple(f.name for f in dataclasses.fields(TrainingConfig))
    for name in changes:
        if name not in valid:
            raise InputError(unknown("setting", name, valid))
    return dataclasses.replace(config or TrainingConfig(), **changes)


def check_render_mode(mode: str | None) -> None:
    """An InputError unless the mode is known."""
    if mode is not None and mode not in RENDER_MODES:
        raise InputError(unknown("render mode", mode, RENDER_MODES))


def observation_space(width: int) -> spaces.Dict:
    """Features of layers and of the whole, which layers exist, densities, time."""
    big = np.inf
    return spaces.Dict(
        layers=spaces.Box(-big, big, (width, len(LAYER_FEATURES)), np.float32),
        whole=spaces.Box(-big, big, (len(GLOBAL_FEATURES),), np.float32),
        live=spaces.MultiBinary(width),
        density=spaces.Box(0.0, 1.0, (width,), np.float32),
        time=spaces.Box(0.0, big, (1,), np.float32),
    )


def action_space(config: TrainingConfig, width: int) -> spaces.Space:
    """One of three moves for each layer, or its density."""
    if config.mode == "step":
        return spaces.MultiDiscrete([3] * width)
    return spaces.Box(config.min_density, 1.0, (width,), np.float32)


def checked_action(action: Any, shape: tuple[int, ...], config: TrainingConfig) -> torch.Tensor:
    """An action of `shape`, layers last.

    Raises:
        InputError: another shape, no numbers, or no action; padding is no exception.
    """
    found = np.asarray(action)
    if found.shape != shape:
        raise InputError(f"action: shape is {found.shape}; allowed is {shape}")
    if found.dtype.kind not in "iuf":
        raise InputError(f"action: type is {found.dtype}; allowed are integers or floats")
    numbers = torch.from_numpy(found.astype(np.float64))
    if config.mode == "step":
        return checked_steps(numbers)
    return checked_densities(numbers, config.min_density, 1.0).float()


def drawn(
    config: TrainingConfig, rng: np.random.Generator, options: Mapping[str, Any] | None,
    own: tuple[str, str] | None = None,
) -> Context:  # fmt: skip
    """A context: `options` where given, else drawn; always as many random numbers.

    Args:
        own: network and task of a slot that can have no others.
    """
    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            raise InputError(unknown("option", name, OPTIONS))
    pair = config.problems[int(rng.integers(len(config.problems)))]
    network, task = own or pair
    found: dict[str, Any] = {
        "network": network, "task": task,
        "device": config.devices[int(rng.integers(len(config.devices)))],
        "target": min(1.0, float(rng.uniform(*config.targets))),
        "seed": int(rng.integers(*config.seeds)),
    }  # fmt: skip
    return Context(**{**found, **given})


def observations(seen: TensorDict) -> dict[str, np.ndarray]:
    """Of all slots, (batch, …)."""
    found = {name: seen[name].numpy() for name in _OBSERVED}
    return {**found, "live": found["live"].astype(np.int8)}


def info(env: SparseTrainingEnv, place: int) -> dict[str, Any]:
    """Of one slot: its context, the names of its layers, seconds, losses, how it ended."""
    contexts = env.contexts
    assert contexts is not None
    names = next(g.networks.names for g in env.groups if place in g.places.tolist())
    state = {name: float(values[place]) for name, values in env.state.items()}
    return {
        "context": dataclasses.asdict(contexts[place]),
        "layers": names,
        **{name: state[name] for name in ("loss", "target_loss", "spent_s", "dense_s")},
        **{name: state[name] > 0 for name in ("reached", "failed")},
    }


def text(info: Mapping[str, Any], density: Sequence[float]) -> str:
    """The run as it stands, a line per layer, as `render_mode="ansi"` has it."""
    context = info["context"]
    widest = max(len(name) for name in info["layers"])
    lines = [
        f"{context['network']} on {context['task']}, {context['device']}: loss "
        f"{info['loss']:.4g}, target {info['target_loss']:.4g}; {info['spent_s']:.3g} s of the "
        f"dense run's {info['dense_s']:.3g} s"
    ]
    for name, share in zip(info["layers"], density, strict=False):
        lines.append(f"{name:<{widest}} {'█' * round(20 * share):<20} {100 * share:.3g} %")
    return "\n".join(lines)


def picture(history: Sequence[np.ndarray], cell: int = 12) -> np.ndarray:
    """Densities over decisions, (layers · cell, decisions · cell, 3) uint8: black is dense.

    Args:
        history: (layers,) of each decision so far.
    """
    share = np.stack(history, 1)  # (layers, decisions)
    grey = np.round(255 * (1.0 - np.clip(share, 0.0, 1.0))).astype(np.uint8)
    large = np.repeat(np.repeat(grey, cell, 0), cell, 1)
    return np.repeat(large[..., None], 3, 2)
