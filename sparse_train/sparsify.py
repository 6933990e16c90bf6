"""Masks onto any module: gradients, weights and optimizer state follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from hwsim.mask import Mask
from sparse_train.algorithms import Algorithm
from sparse_train.distributions import Distribution
from sparse_train.masking import optimizer_state
from sparse_train.masking.build import make_algorithm, make_distribution, make_pattern
from sparse_train.masking.layers import Selector, select_layers
from sparse_train.masking.plan import make_plan
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.patterns import Projection
from sparse_train.regularisers import Regulariser
from sparse_train.regularisers import regulariser as as_regulariser
from sparse_train.schedules import Schedule

__all__ = ["Sparsifier", "sparsify"]


def sparsify(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None,
    algorithm: str | Algorithm = "rigl",
    density: float = 0.1,
    pattern: str | Projection | None = None,
    distribution: str | Distribution | Mapping[str, float] | None = None,
    schedule: str | Schedule | None = None,
    update_interval: int | None = None,
    drop_fraction: float = 0.3,
    end_step: int | None = None,
    total_steps: int | None = None,
    layers: Selector | Sequence[Selector] | None = None,
    seed: int = 0,
    *,
    drop_schedule: str = "cosine",
    initial_density: float = 1.0,
    initial_masks: Mapping[str, np.ndarray | Mask] | str | None = None,
    replace_step: bool = False,
    regulariser: str | Regulariser | None = None,
    scaler: Any = None,
    choose_on: str = "auto",
    **options: Any,
) -> Sparsifier:
    """Make `model` sparse and keep it so while it trains.

        sparsifier = sparsify(model, optimizer, "rigl", density=0.1, total_steps=10_000)
        for batch in batches:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            sparsifier.step()

    No forward parametrization: inactive weights are exactly zero, so that forward and backward
    are the model's own and cost nothing extra. A hook that runs when a gradient has been
    accumulated zeroes it where the weight is inactive, so that clipping, moments and weight decay
    see the masked gradient. In the update steps of algorithms that grow by gradient the hook first
    adds the dense gradient to a buffer at the side; other steps never hold one. Masks are boolean
    buffers beside their weight (`weight_mask`), part of the model's state_dict. Every state tensor
    of the optimizer that has the weight's shape is zero where the weight is inactive, and where it
    was newly grown.

    Args:
        model: any module. Sparsify before wrapping it in DistributedDataParallel, and after
            fully_shard (then make the optimizer, then sparsify).
        optimizer: what trains it, or several; None for masks without training.
        algorithm: a name in `sparse_train.algorithms`, or an instance; `options` go to it.
        density: share of the masked weights that is active (at the end, if the schedule moves).
        pattern: a name in `sparse_train.patterns`, such as "unstructured", "2:4", "fan_in",
            "block:16,16", or an instance; None takes the algorithm's own, mostly unstructured.
        distribution: "uniform", "er", "erk", {layer: density}, or (shapes, density) → {layer:
            density}; None is "erk", and "uniform" under a pattern of fixed density, such as 2:4.
        schedule: "constant", "linear", "quadratic", "cubic", "cosine", "exponential", or progress
            → density (or → {layer: density}); None takes the algorithm's own.
        update_interval: steps between mask updates (ΔT); None takes the algorithm's own, mostly
            100.
        drop_fraction: share α of the active weights that the first updates drop.
        end_step: masks are updated in steps t with t % ΔT == 0 and t < end_step; None takes 75 %
            of total_steps, or no end where that is not given either (the drop fraction then
            stays at α).
        total_steps: optimizer steps of the whole run.
        layers: what is masked: None for every weight of a product (linear, convolutional, recurrent
            and attention layers, stacked experts; `sparse_train.masking.kinds.layout_of`) but the
            output layer's (the last one in the model's order); "all" to include that; or layer
            names, name patterns, module types, functions (name, module) → bool. Embeddings only
            by name or type.
        seed: of the random first mask and of random growth; the same on every rank.
        drop_schedule: "cosine" α/2·(1 + cos(πt/end_step)), "linear" or "constant".
        initial_density: where a moving schedule starts.
        initial_masks: {layer: mask}, or "random", "magnitude", "dense"; None takes the
            algorithm's own.
        replace_step: in update steps the gradient is not applied to any parameter, as the RigL
            paper has it. By default it is: weights move first, then masks, both by the gradient
            at the weights before.
        regulariser: what pushes weights to zero, by name ("l1:1e-4") or an instance; its gradient
            is added to the masked one just before the optimizer's step (after clipping).
        scaler: the torch.amp.GradScaler, if there is one. An overflow of an inactive weight's
            gradient then counts as an overflow in update steps.
        choose_on: where masks are chosen: "host"; "device", where the weights are (torch, the same
            bits); "auto" is "device" unless that is the CPU, whose own kernels are faster. The
            patterns group, transposable_n_m and balanced with rows are always chosen on the host,
            and algorithms of your own that do not say `on_device`; `Sparsifier.chosen_on` says so.
        options: of the algorithm.

    Raises:
        InputError: unknown names, values out of range, weights that cannot be masked, optimizers
            whose state cannot follow a mask. The model is then as it was.
    """
    optimizers = optimizer_state.as_optimizers(optimizer)
    rule = make_algorithm(algorithm, options)
    projection = make_pattern(pattern, rule)
    selection = select_layers(model, layers, optimizer_state.held(optimizers))
    plan = make_plan(
        {part: layer.part_dims for layer in selection.layers for part in layer.parts},
        density=density,
        distribution=make_distribution(distribution, projection),
        schedule=rule.schedule if schedule is None else schedule,
        initial_density=initial_density,
        update_interval=rule.update_interval if update_interval is None else update_interval,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        end_step=end_step,
        total_steps=total_steps,
        pattern=projection,
        matrices={
            part: layer.layout.matrix(layer.weight_shape)
            for layer in selection.layers
            for part in layer.parts
        },
    )
    return Sparsifier(
        model, optimizers, selection, rule, projection, plan, seed,
        first=initial_masks if initial_masks is not None else rule.first_mask,
        replace_step=replace_step, scaler=scaler, choose_on=choose_on,
        regulariser=None if regulariser is None else as_regulariser(regulariser),
    )  # fmt: skip
