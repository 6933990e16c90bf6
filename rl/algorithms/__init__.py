"""What learns: one algorithm a file, all behind `rl.algorithms._base.Agent`."""

from __future__ import annotations

import dataclasses
from typing import Any

from hwsim import InputError
from hwsim.errors import unknown
from hwsim.registry import Registry
from rl.algorithms._base import Agent

ALGORITHMS = Registry("agent algorithm", "rl.algorithms", "AGENT", group="nettime.agents")


def make_agent(algorithm: str, /, **settings: Any) -> Agent[Any]:
    """A new agent by name, with fields of its configuration.

    Raises:
        InputError: an unknown algorithm or setting; both list the valid ones.
    """
    kind = ALGORITHMS.get(algorithm)
    valid = tuple(f.name for f in dataclasses.fields(kind.configuration))
    for name in settings:
        if name not in valid:
            raise InputError(unknown(f"setting of {algorithm}", name, valid))
    config = kind.configuration(**settings)
    if config.mode not in kind.modes:
        raise InputError(
            f"action mode: value is {config.mode!r}; allowed for {algorithm} is "
            f"{' or '.join(kind.modes)}"
        )
    return kind(config)


__all__ = ["ALGORITHMS", "Agent", "make_agent"]
