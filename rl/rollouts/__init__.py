"""Where episodes are collected: one file is one way to run them, bound to ROLLOUTS."""

from __future__ import annotations

from hwsim.registry import Registry
from rl.rollouts._base import Rollouts, collect
from rl.worlds import World

BACKENDS = Registry("rollout backend", "rl.rollouts", "ROLLOUTS", group="nettime.rollouts")


def make_rollouts(name: str, world: World, seed: int, processes: int = 1) -> Rollouts:
    """Workers of a backend by name, with the world's shards dealt out to them.

    Raises:
        InputError: an unknown name (the valid ones are listed), or what it needs is not installed.
    """
    return BACKENDS.get(name)(world, seed, processes)


__all__ = ["BACKENDS", "Rollouts", "collect", "make_rollouts"]
