"""What the agent is held against: one opponent a file, all behind `_base.Opponent`."""

from __future__ import annotations

from hwsim.registry import Registry
from rl.baselines._base import Budget, Opponent, Setup, everywhere, halving

OPPONENTS = Registry("opponent", "rl.baselines", "OPPONENT", group="nettime.opponents")


def make_opponent(name: str, setup: Setup | None = None) -> Opponent:
    """An opponent by name; an InputError that lists the valid names if there is none."""
    return OPPONENTS.get(name)(setup or Setup())


__all__ = ["OPPONENTS", "Budget", "Opponent", "Setup", "everywhere", "halving", "make_opponent"]
