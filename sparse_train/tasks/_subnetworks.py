"""Sub-networks of one network, one for each of a stream of tasks; no weight is trained by two."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hwsim.errors import InputError
from sparse_train.algorithms import Algorithm, Outcome, State, View
from sparse_train.masking import optimizer_state
from sparse_train.masking.plan import MaskCalendar
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.segments import select
from sparse_train.selection import top_k

Taken = dict[str, np.ndarray]


@dataclass(frozen=True)
class CyclicPlan(MaskCalendar):
    """A plan that begins anew with each task.

    Attributes:
        period: steps of a task; `end_step` counts within it.
        tasks: how many; the last one goes on for ever.
        adds_up: whether masks hold the weights of the tasks before, too.
    """

    period: int = 1
    tasks: int = 1
    adds_up: bool = False

    def budgets(self, step: int) -> dict[str, int]:
        """Of a task; with `adds_up` as many for each task so far."""
        own = super().budgets(step)
        times = step - self.within(step) if self.adds_up else 0
        return {name: budget * (1 + times // self.period) for name, budget in own.items()}

    def within(self, step: int) -> int:
        """A step's number within its task, counted from 1."""
        return step - self.period * min(max(step - 1, 0) // self.period, self.tasks - 1)

    def is_update_step(self, step: int) -> bool:
        return super().is_update_step(self.within(step))

    def drop_fraction_at(self, step: int) -> float:
        """As of one task: it begins anew with each."""
        return super().drop_fraction_at(self.within(step))

    def progress(self, step: int) -> float:
        return super().progress(self.within(step)) if step else 0.0


def isolated(inner: Algorithm, taken: Taken, reuse: bool = False) -> Algorithm:
    """The same algorithm, kept off the weights that are taken.

    It sees no gradient there. What it grows there all the same goes to the best free place of the
    same row, by gradient where it has one, else at random; without a free one in the row, to the
    best anywhere, or under a pattern nowhere.

    Args:
        inner: grows from random masks at a constant density, as static, SET, RigL and SRigL do.
        taken: layer → bool (n_out, n_in); looked at in each update.
        reuse: masks hold the taken weights, which the algorithm does not see.

    Raises:
        InputError: an algorithm of another kind.
    """
    kind = type(inner)
    if inner.dense_weights or inner.first_mask != "random" or inner.schedule != "constant":
        raise InputError(
            f"algorithm: {kind.__name__} cannot be kept to a sub-network; allowed with "
            "subnetworks 'per_task' are those that grow from random masks at constant density, "
            "such as static, set, rigl, srigl; or use subnetworks='shared'"
        )

    def update(self: Any, view: View, state: State) -> Outcome:
        if reuse:
            view = _own(view, taken)
        if view.gradients is not None:
            free = {n: np.where(taken[n], np.float32(0), g) for n, g in view.gradients.items()}
            view = dataclasses.replace(view, gradients=free)
        outcome = kind.update(self, view, state)
        masks = {n: _moved(view, n, mask, taken[n]) for n, mask in outcome.masks.items()}
        if reuse:
            masks = {name: mask | taken[name] for name, mask in masks.items()}
        return outcome._replace(masks=masks)

    made = type(f"Isolated{kind.__name__}", (kind,), {"update": update})
    return made(**{f.name: getattr(inner, f.name) for f in dataclasses.fields(kind)})


def _own(view: View, taken: Taken) -> View:
    """The view of one task's weights: what is taken is neither active nor counted."""
    return dataclasses.replace(
        view,
        masks={name: mask & ~taken[name] for name, mask in view.masks.items()},
        weights={n: np.where(taken[n], np.float32(0), w) for n, w in view.weights.items()},
        budgets={n: b - int(np.count_nonzero(taken[n])) for n, b in view.budgets.items()},
    )


def keep_frozen(sparsifier: Sparsifier, taken: Taken) -> None:
    """From now on no step of the optimizers changes a weight that is taken."""
    before: dict[str, torch.Tensor] = {}

    def remember(*_: Any) -> None:
        for name, layer in sparsifier.layers.items():
            if taken[name].any():
                before[name] = layer.parameter.detach().clone()

    def put_back(*_: Any) -> None:
        with torch.no_grad():
            for name, values in before.items():
                layer = sparsifier.layers[name]
                frozen = layer.tensor(taken[name])
                layer.parameter.copy_(torch.where(frozen, values, layer.parameter))

    for optimizer in sparsifier.optimizers:
        optimizer.register_step_pre_hook(remember)
        optimizer.register_step_post_hook(put_back)


def begin(
    sparsifier: Sparsifier, taken: Taken, rng: np.random.Generator, reuse: bool = False
) -> None:
    """A new sub-network: random free weights, newly initialised, without moments.

    With `reuse` the taken weights stay, and are active.

    Weights start uniform in ±1/√k, k the active weights of their row: as torch's linear layers do,
    with the fan-in that is there. The networks are so sparse that signals would die otherwise.

    Source: Evci et al. 2022, "Gradient Flow in Sparse Neural Networks", section 3.1.
    """
    for name, budget in sparsifier.plan.budgets(0).items():
        layer = sparsifier.layers[name]
        # A random score above that of every taken weight; projections want scores of at least 0.
        scores = rng.random(layer.shape, dtype=np.float32) + np.float32(1)
        mask = sparsifier.pattern.project(np.where(taken[name], np.float32(0), scores), budget)
        mask &= ~taken[name]
        active = mask | taken[name] if reuse else mask
        bound = 1 / np.sqrt(active.sum(axis=1, keepdims=True).clip(min=1))
        values = rng.uniform(-bound, bound, layer.shape).astype(np.float32)
        new = layer.tensor(np.where(mask, values, np.float32(0)))
        with torch.no_grad():
            if reuse:
                new = torch.where(layer.tensor(taken[name]), layer.parameter, new)
            layer.parameter.copy_(new)
        layer.set_mask(active)
        nothing = torch.zeros_like(layer.mask)
        optimizer_state.zero_moments(sparsifier.optimizers, layer.parameter, nothing)


def _moved(view: View, name: str, mask: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The mask with what lies on taken weights moved to free ones."""
    wrong = mask & taken
    if not wrong.any():
        return mask
    if view.gradients is not None:
        scores = np.abs(view.gradients[name])
    else:
        scores = view.rng.random(mask.shape, dtype=np.float32)
    right = mask & ~taken
    edges = np.array([0, mask.shape[1]], dtype=np.int64)
    quotas = wrong.sum(axis=1, dtype=np.int64).reshape(-1, 1)
    right |= select(scores, ~right & ~taken, quotas, edges)
    left = int(np.count_nonzero(mask)) - int(np.count_nonzero(right))
    free = ~right & ~taken
    if left and view.pattern.name == "unstructured":
        right |= top_k(scores, min(left, int(np.count_nonzero(free))), free)
    return right
