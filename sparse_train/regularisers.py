"""What pushes weights to zero: an option of every algorithm.

A regulariser gives the gradient of its penalty with respect to a weight (n_out, n_in); it is added
to the masked gradient just before the optimizer's step, times a strength that can change.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hwsim.checks import check_number
from hwsim.errors import InputError
from hwsim.references import is_reference
from hwsim.registry import NameTable


@dataclass(frozen=True)
class Regulariser:
    """Base of all regularisers.

    Args:
        strength: a number, or a function of progress (0 at the start, 1 at the last update).
    """

    strength: float | Callable[[float], float] = 1e-4

    def __post_init__(self) -> None:
        if not callable(self.strength):
            _check(self.strength)

    def strength_at(self, progress: float) -> float:
        """Its strength at a share of the run."""
        return _check(self.strength(progress) if callable(self.strength) else self.strength)

    def penalty(self, weight: Tensor) -> Tensor:
        """A scalar, 0 for a weight of zeros."""
        raise TypeError(f"{type(self).__name__} must define penalty(weight)")

    def gradient(self, weight: Tensor) -> Tensor:
        """Of the penalty; 0 where a group of weights is all zero."""
        with torch.enable_grad():
            leaf = weight.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.penalty(leaf), leaf)
        return gradient


@dataclass(frozen=True)
class L1(Regulariser):
    """Σ |w|."""

    def penalty(self, weight: Tensor) -> Tensor:
        return weight.abs().sum()


@dataclass(frozen=True)
class GroupLasso(Regulariser):
    """Σ over groups of √size · ‖group‖₂; a group is a row (axis 0) or a column (axis 1).

    Source: Yuan & Lin 2006; Wen et al. 2016, section 3.
    """

    axis: int = 0

    def penalty(self, weight: Tensor) -> Tensor:
        across = 1 - self.axis
        squares = weight.square().sum(dim=across)
        # √0 has no gradient: groups of zeros are left out.
        norms = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
        norms = torch.where(squares > 0, norms, torch.zeros_like(norms))
        return math.sqrt(weight.shape[across]) * norms.sum()


@dataclass(frozen=True)
class Hoyer(Regulariser):
    """(Σ |w|)² / Σ w²: between 1 and the number of weights, and the same at every scale.

    Source: Yang et al. 2020 (DeepHoyer), section 3.
    """

    def penalty(self, weight: Tensor) -> Tensor:
        squares = weight.square().sum()
        if not bool(squares > 0):
            return weight.sum() * 0
        return weight.abs().sum().square() / squares


REGULARISERS = NameTable(
    "regulariser", {"group_lasso": GroupLasso, "hoyer": Hoyer, "l1": L1},
    group="nettime.regularisers",
)  # fmt: skip


def regulariser(given: str | Regulariser) -> Regulariser:
    """A regulariser by name, or the instance that was given.

    Args:
        given: "l1", or with its strength "l1:1e-4"; or "module:Class", "module:Class:1e-4".

    Raises:
        InputError: an unknown name, or a strength that is no number of at least 0.

    >>> regulariser("l1:0.001")
    L1(strength=0.001)
    """
    if isinstance(given, Regulariser):
        return given
    name, strength = _split(given)
    made = REGULARISERS.get(name)
    if strength is not None:
        made = (
            dataclasses.replace(made, strength=strength)
            if isinstance(made, Regulariser)
            else made(strength=strength)
        )
    return made if isinstance(made, Regulariser) else made()


def check_regulariser(given: str) -> None:
    """An InputError unless `regulariser` can make something of a name. Nothing is imported."""
    REGULARISERS.check(_split(given)[0])


def _split(given: str) -> tuple[str, float | None]:
    if not isinstance(given, str):
        raise InputError(f"regulariser: value is {given!r}; allowed is a name or a Regulariser")
    name, colon, text = given.rpartition(":")
    if not colon:
        return given, None
    try:
        return name, _check(float(text))
    except ValueError:
        if is_reference(given) and name not in REGULARISERS.names():
            return given, None
        raise InputError(
            f"regulariser: strength is {text!r}; allowed is a number of at least 0"
        ) from None


def _check(strength: object) -> float:
    check_number("strength", strength, least=0)
    return float(strength)  # type: ignore[arg-type]
