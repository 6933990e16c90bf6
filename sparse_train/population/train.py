"""Many small networks trained at once: one architecture, weights, masks, data and seeds of each.

A network of a few thousand weights leaves a processor idle between its operations. Here n of them
share every operation (`torch.func.vmap`), so that a step of all costs little more than one of a
few. Masks are exact: each network has its own number of weights in each layer.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from hwsim.checks import check_number
from hwsim.errors import InputError, unknown
from hwsim.mask import Mask
from sparse_train.masking.layers import Selector, select_layers
from sparse_train.population.model import Measured, Watch, check_stateless, written_out
from sparse_train.tasks import Batch, Prepared, stream

DROPS = ("magnitude", "random")
GROWTHS = ("gradient", "random")
# First numbers of the keys of random streams, so that no two purposes share one.
_DROP, _GROW = 11, 12
_STATE = ("weights", "first", "second", "mask", "nnz", "steps", "gradients", "activations")


@dataclass(frozen=True)
class AdamW:
    """Settings of the optimizer, the same for all networks.

    Attributes:
        lr: learning rate, reached in a straight line in `warmup` steps.
        density_power: a masked layer of density d learns at lr · d^(−density_power). Adam moves
            every weight alike, so at one rate a sparse layer's output moves less, by its density;
            1 makes up for it. 0 is Adam itself.

    Source: Loshchilov & Hutter (2019), "Decoupled weight decay regularization", algorithm 2;
    Dey et al. (2024), "Sparse maximal update parameterization", for a power of 1.
    """

    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: int = 0
    density_power: float = 0.0

    def __post_init__(self) -> None:
        check_number("density_power", self.density_power, least=0, most=1)
        check_number("lr", self.lr, above=0)
        for beta in self.betas:
            check_number("betas", beta, least=0, below=1)
        check_number("warmup", self.warmup, least=0)


class Population:
    """`size` networks of one architecture, each with its own weights, masks and Adam moments.

    Inactive weights and their moments are exactly 0 after every step. Gradients are taken with
    respect to the effective weights, so those of inactive weights are known (growth needs them).

    Args:
        task: the data and the loss.
        model: an instance of the architecture; its weights are not used.
        size: how many networks.
        optimizer: see `AdamW`.
        layers: which weights are masked, as for `sparsify`.

    Attributes:
        names, shapes: of the masked layers; shapes are (n_out, n_in).
        nnz: (size, layers) active weights, int64.
        steps: (size,) optimizer steps made, int64.
        weights, first, second: (size, parameters), float32.

    Raises:
        InputError: a model with buffers that training changes (BatchNorm), or nothing to mask.
    """

    def __init__(
        self,
        task: Prepared,
        model: nn.Module,
        size: int,
        optimizer: AdamW | None = None,
        layers: Selector | Sequence[Selector] | None = None,
    ) -> None:
        check_number("size", size, least=1)
        check_stateless(model)
        self.task, self.optimizer, self.size = task, optimizer or AdamW(), size
        self._module = Measured(model, task)
        chosen = select_layers(model, layers, None).layers
        self._slices: dict[str, tuple[int, int, torch.Size]] = {}
        end = 0
        for name, parameter in self._module.named_parameters():
            self._slices[name] = (end, end + parameter.numel(), parameter.shape)
            end += parameter.numel()
        self.names = tuple(layer.name for layer in chosen)
        self.shapes = tuple(layer.shape for layer in chosen)
        own = {id(p): name for name, p in self._module.named_parameters()}
        columns = [self._slices[own[id(layer.parameter)]] for layer in chosen]
        self.starts = np.array([a for a, _, _ in columns])
        self.ends = np.array([b for _, b, _ in columns])
        self.sizes = torch.from_numpy(self.ends - self.starts)
        self.weights, self.first, self.second = (torch.zeros(size, end) for _ in range(3))
        self.mask = torch.ones(size, end, dtype=torch.uint8)
        self._rates = torch.ones(size, end)
        self.nnz = self.sizes.expand(size, -1).clone()
        self.steps = torch.zeros(size, dtype=torch.long)
        self.gradients = torch.zeros(size, end)
        self.activations = torch.zeros(size, len(chosen), 2)
        # (size, parameters): values at which weights were dropped, once they are to be restored.
        self.retained: Tensor | None = None
        self._written_out = written_out(model, task)
        self._watch = Watch(chosen)
        self._step = vmap(grad_and_value(self._loss, has_aux=True))
        self._metrics = vmap(self._measure, in_dims=(0, None))

    # Weights in and out.

    def flat(self, model: nn.Module) -> Tensor:
        """The weights of a model of this architecture in the order used here, (parameters,)."""
        own = dict(model.named_parameters())
        return torch.cat([own[n.removeprefix("model.")].detach().flatten() for n in self._slices])

    def start(self, which: Tensor, initial: Tensor) -> None:
        """New dense networks in the places `which` (n,), with weights `initial` (n, parameters)."""
        self.weights[which] = initial
        for state in (self.first, self.second, self.gradients, self.activations, self.steps):
            state[which] = 0
        self.mask[which] = 1
        self.nnz[which] = self.sizes
        if self.retained is not None:
            self.retained[which] = 0
        self._set_rates(which)

    def take(self, which: Tensor) -> dict[str, Tensor]:
        """A copy of everything that networks `which` are."""
        found = {name: getattr(self, name)[which].clone() for name in _STATE}
        if self.retained is not None:
            found["retained"] = self.retained[which].clone()
        return found

    def put(self, which: Tensor, networks: dict[str, Tensor]) -> None:
        """Networks from `take` into the places `which`."""
        for name in _STATE:
            getattr(self, name)[which] = networks[name]
        if "retained" in networks and self.retained is None:
            self.retained = torch.zeros_like(self.weights)
        if self.retained is not None:
            self.retained[which] = networks.get("retained", torch.zeros(1))
        self._set_rates(which)

    def state_dict(self) -> dict[str, Tensor]:
        """All networks: what `take` gives of each."""
        return self.take(torch.arange(self.size))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises an InputError if the state is that of another architecture or size."""
        for name in _STATE:
            if state[name].shape != getattr(self, name).shape:
                raise InputError(
                    f"state of the population: {name} is {tuple(state[name].shape)}; allowed is "
                    f"{tuple(getattr(self, name).shape)}"
                )
        self.put(torch.arange(self.size), state)

    def network(self, row: int) -> nn.Module:
        """One network as a module of its own, its inactive weights 0."""
        model = copy.deepcopy(self._module.model)
        for module in model.modules():
            module._forward_hooks.clear()  # ours
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                a, b, shape = self._slices[f"model.{name}"]
                parameter.copy_(self.weights[row, a:b].view(shape))
        return model

    def masks(self, row: int) -> dict[str, Mask]:
        """Layer name → mask of one network."""
        flat = self.mask[row].numpy().astype(bool)
        parts = zip(self.names, self.shapes, self.starts, self.ends, strict=True)
        return {name: Mask(flat[a:b].reshape(shape)) for name, shape, a, b in parts}

    # Training.

    def step(self, batch: Batch, which: Tensor | None = None, *, watch: bool = False) -> Tensor:
        """One optimizer step of networks `which` (all by default).

        Args:
            batch: of each network its own, stacked: tensors (n, …).
            watch: keep what was seen: `gradients` (size, parameters), with respect to the
                effective weights, and `activations` (size, layers, 2), mean and variance of each
                masked layer's output.

        Returns:
            the training losses before the step, (n,).
        """
        rows, loss, gradients = self._differentiate(batch, which, watch)
        self.steps[rows] += 1
        steps = self.steps[rows].numpy().astype(np.float64)
        o = self.optimizer
        lr = o.lr * np.minimum(1.0, steps / max(1, o.warmup))
        _passes().adamw(
            rows.numpy(), self.weights.numpy(), self.first.numpy(), self.second.numpy(),
            gradients.numpy(), self.mask.numpy(), self._rates.numpy(), steps, lr,
            *o.betas, o.eps, o.weight_decay,
        )  # fmt: skip
        return loss

    def look(self, batch: Batch, which: Tensor | None = None) -> Tensor:
        """Gradients, activations and losses as `step` with `watch`, but no step is made."""
        return self._differentiate(batch, which, watch=True)[1]

    def _differentiate(
        self, batch: Batch, which: Tensor | None, watch: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, losses (n,), gradients of the effective weights (n, parameters))."""
        rows = torch.arange(self.size) if which is None else which
        weights = self.weights if which is None else self.weights[which]
        views = self._views(weights)
        if self._written_out is not None:
            names = self.names if watch else ()
            gradients, loss, seen = self._written_out.differentiate(
                self._module.model, views, batch, names
            )
        else:
            gradients, loss, seen = self._vmapped(views, batch, watch)
        flat = torch.cat([gradients[name].reshape(len(rows), -1) for name in self._slices], 1)
        if watch:
            self.gradients[rows] = flat
            self.activations[rows] = seen
        return rows, loss, flat

    def _vmapped(
        self, views: dict[str, Tensor], batch: Batch, watch: bool
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Gradients by parameter, losses, and what is watched, of any model."""
        self._watch.on = watch
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vmapped
                gradients, (loss, seen) = self._step(views, batch)
        finally:
            self._watch.on = False
            self._watch.seen.clear()
        return gradients, loss, seen

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch], which: Tensor | None = None) -> dict[str, Tensor]:
        """The task's metrics of each network, means over all examples of `batches`; each (n,)."""
        weights = self.weights if which is None else self.weights[which]
        totals: dict[str, Tensor] = {}
        examples = 0
        self._module.eval()
        try:
            for batch in batches:
                n = len(next(iter(batch.values())))
                if self._written_out is not None:
                    found = self._written_out.measure(
                        self._module.model, self._views(weights), batch
                    )
                else:
                    with sdpa_kernel(SDPBackend.MATH):
                        found = self._metrics(self._views(weights), batch)
                for name, value in found.items():
                    totals[name] = totals.get(name, 0.0) + value * n
                examples += n
        finally:
            self._module.train()
        return {name: total / examples for name, total in totals.items()}

    # Masks.

    def update(
        self,
        which: Tensor,
        nnz: Tensor,
        seeds: Sequence[int],
        *,
        drop_fraction: float = 0.0,
        drop: str = "magnitude",
        grow: str = "gradient",
        restore: bool = False,
    ) -> None:
        """New masks with exactly `nnz` (n, layers) active weights in networks `which` (n,).

        Of the active weights a share `drop_fraction` is dropped (rounded down), those of smallest
        magnitude or at random; more, if more are left than there are to be. What is missing is
        grown, where the last watched gradient is largest or at random, among all weights not
        kept: one just dropped may come back, and then keeps value and moments. Grown weights start
        at 0, or with `restore` at the value at which they were last dropped (0 if they never were
        active).

        Args:
            seeds: of each network's random choices, which depend on it and its step alone.

        Source: Evci et al. 2020 (RigL), section 3; Mocanu et al. 2018 (SET) for random growth.
        """
        if drop not in DROPS:
            raise InputError(unknown("drop criterion", drop, DROPS))
        if grow not in GROWTHS:
            raise InputError(unknown("growth criterion", grow, GROWTHS))
        check_number("drop_fraction", drop_fraction, least=0, most=1)
        if bool((nnz < 0).any()) or bool((nnz > self.sizes).any()):
            raise InputError(
                f"nnz: values are {int(nnz.min())} to {int(nnz.max())}; allowed is 0 to the "
                f"layer's size, {self.sizes.tolist()}"
            )
        kept = left_of(self.nnz[which], nnz, drop_fraction)
        scores = {
            "magnitude": lambda _: torch.nan_to_num(self.weights[which].abs()).numpy(),
            "gradient": lambda _: torch.nan_to_num(self.gradients[which].abs()).numpy(),
            "random": lambda purpose: self._random(which, seeds, purpose),
        }
        before = self._remembered(which) if restore else None
        _passes().redraw(
            which.numpy(), scores[drop](_DROP), scores[grow](_GROW), self.mask.numpy(),
            self.starts, self.ends, kept.numpy(), (nnz - kept).numpy(),
        )  # fmt: skip
        self.nnz[which] = nnz
        self._set_rates(which)
        for values in (self.weights, self.first, self.second):
            _passes().zero_inactive(which.numpy(), values.numpy(), self.mask.numpy())
        if before is not None:
            assert self.retained is not None
            grown = (self.mask[which] == 1) & (before == 0)
            self.weights[which] = torch.where(grown, self.retained[which], self.weights[which])

    def _remembered(self, which: Tensor) -> Tensor:
        """The masks as they are; what is active is remembered with its value."""
        if self.retained is None:
            self.retained = torch.zeros_like(self.weights)
        before = self.mask[which].clone()
        self.retained[which] = torch.where(before == 1, self.weights[which], self.retained[which])
        return before

    def gradient_norms(self, which: Tensor) -> Tensor:
        """2-norm of the last watched gradient over each layer's active weights, (n, layers)."""
        squares = (self.gradients[which] * self.mask[which]).square()
        ends = zip(self.starts, self.ends, strict=True)
        return torch.stack([squares[:, a:b].sum(1).sqrt() for a, b in ends], 1)

    def gradient_masses(self, which: Tensor, counts: Tensor) -> Tensor:
        """Σ|g| over the weights active at `counts` (n, layers, c) weights; float64 of that shape.

        g is the last watched gradient. Below the present number the largest weights stay, above
        it those of largest gradient join.
        """
        return torch.from_numpy(
            _passes().gradient_masses(
                which.numpy(),
                torch.nan_to_num(self.weights[which].abs()).numpy(),
                torch.nan_to_num(self.gradients[which].abs()).numpy(),
                self.mask.numpy(), self.starts, self.ends, counts.numpy(),
            )
        )  # fmt: skip

    def _set_rates(self, which: Tensor) -> None:
        """Learning rates of masked layers, from their densities."""
        power = self.optimizer.density_power
        if power:
            rates = (self.sizes / self.nnz[which].clamp(min=1)) ** power  # (n, layers)
            for layer, (a, b) in enumerate(zip(self.starts, self.ends, strict=True)):
                self._rates[which, a:b] = rates[:, layer, None].float()

    def _random(self, which: Tensor, seeds: Sequence[int], purpose: int) -> np.ndarray:
        steps = self.steps[which].tolist()
        n = self.weights.shape[1]
        streams = (stream(purpose, s, t) for s, t in zip(seeds, steps, strict=True))
        return np.stack([rng.random(n, dtype=np.float32) for rng in streams])

    def _views(self, weights: Tensor) -> dict[str, Tensor]:
        """Parameter name → (n, *shape), views of `weights` (n, parameters)."""
        return {name: weights[:, a:b].unflatten(1, s) for name, (a, b, s) in self._slices.items()}

    def _loss(self, weights: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        self._watch.seen.clear()
        loss = functional_call(self._module, weights, (batch, False))["loss"]
        return loss, torch.stack(self._watch.seen) if self._watch.seen else loss.detach()

    def _measure(self, weights: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return functional_call(self._module, weights, (batch, True))


def left_of(active: Tensor, wanted: Tensor, share: float) -> Tensor:
    """How many of `active` weights stay when a share is dropped and `wanted` are to be active.

    >>> left_of(torch.tensor([130, 130]), torch.tensor([130, 50]), 0.3).tolist()
    [91, 50]
    """
    # Rounded off as `algorithms._base.rounded` does: 0.3 · 130 is 39.
    dropped = (active.double() * share).round(decimals=9).floor().long()
    return torch.minimum(active - dropped, wanted)


@functools.cache
def _passes() -> Any:
    """The Numba passes, imported when the first population is trained."""
    from sparse_train.population import passes

    return passes
