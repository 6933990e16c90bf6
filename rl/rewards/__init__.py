"""Rewards: one file is one reward, a function (before, after) → tensor bound to REWARD."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable

import torch

from hwsim import InputError
from hwsim.errors import unknown
from hwsim.registry import Registry
from rl.moment import Moment

Reward = Callable[[Moment, Moment], torch.Tensor]
REWARDS = Registry("reward", "rl.rewards", "REWARD", group="nettime.rewards")
_WITH_WEIGHTS = re.compile(r"([^()]+)\(([^()]*)\)")


def make_reward(text: str) -> Reward:
    """A reward by name, or with weights of its own: "dsrl(alpha=2,beta=0.5)".

    Raises:
        InputError: an unknown reward or weight (the valid ones are listed), a weight that is no
            finite number.

    >>> make_reward("dsrl(beta=0)").keywords
    {'beta': 0.0}
    """
    found = _WITH_WEIGHTS.fullmatch(text)
    if not found:
        return REWARDS.get(text)
    function, weights = REWARDS.get(found[1]), {}
    valid = tuple(list(inspect.signature(function).parameters)[2:])
    for part in filter(None, found[2].split(",")):
        name, _, value = part.partition("=")
        if name not in valid:
            raise InputError(unknown(f"weight of reward {found[1]}", name, valid))
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = float("nan")
        if not abs(weights[name]) < float("inf"):
            raise InputError(f"{name}: value is {value!r}; allowed is a finite number")
    return functools.partial(function, **weights)
