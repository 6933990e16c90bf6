"""What optimizers and gradients tell a sparsifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from sparse_train.algorithms import Algorithm
from sparse_train.masking import optimizer_state, persist, steps
from sparse_train.masking._dense import DenseGradients, stamp, untouched
from sparse_train.masking._reserve import Reserve
from sparse_train.masking.bits import whole, zero_where_not_
from sparse_train.masking.layers import MaskedLayer, Selection
from sparse_train.masking.plan import MaskCalendar
from sparse_train.regularisers import Regulariser

_PATIENCE = 100  # calls of step() without an optimizer's step: no loss scale takes so long to fit


class Following:
    """Follows every optimizer that holds a masked weight, and every gradient of one.

    Gradients are zeroed where inactive, the dense ones kept for the updates that need them, and
    what draws weights to zero is added just before an optimizer uses them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        selection: Selection,
        algorithm: Algorithm,
        plan: MaskCalendar,
        *,
        replace_step: bool = False,
        regulariser: Regulariser | None = None,
        scaler: Any = None,
    ) -> None:
        self.model = model
        self.optimizers = tuple(optimizers)
        self.algorithm = algorithm
        self.plan = plan
        self.layers = {layer.name: layer for layer in selection.layers}
        self.steps = 0
        self._replace_step = replace_step
        self._regulariser = regulariser
        self._dense = DenseGradients(algorithm, scaler)
        self._reserve = Reserve(self._seen)
        self._handles: list[Any] = []
        self._ids: dict[int, MaskedLayer] = {}
        self._new_round()
        self._idle = 0
        self._unsteady: list[MaskedLayer] = []

    def is_update_step(self, step: int | None = None) -> bool:
        """Whether masks are updated in step number `step`, counted from 1; None is the next."""
        return self.plan.is_update_step(self.steps + 1 if step is None else step)

    def _gate(self, layer: MaskedLayer) -> Tensor:
        """Where the optimizer trains: where active, unless inactive weights have values too."""
        return self._reserve.trained.get(layer.name, layer.mask)

    def _seen(self, layer: MaskedLayer, weight: Tensor) -> Tensor | None:
        """What the model is to hold of a weight; None for weight · mask."""
        return None

    def _attach(self) -> None:
        self._handles.append(persist.attach_root(self.model))
        for layer in self.layers.values():
            self._handles += persist.attach(layer.module, layer.attribute)
            self._ids[id(layer.parameter)] = layer
            if not layer.parameter.requires_grad:
                continue
            before, after = self._gradient_hooks(layer)
            self._handles.append(layer.parameter.register_hook(before))
            self._handles.append(layer.parameter.register_post_accumulate_grad_hook(after))
        self._note_unsteady()
        steps.watch(self)

    def _detach(self) -> None:
        steps.unwatch(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self.layers.values():
            if hasattr(layer.module, layer.buffer):
                layer.remove_mask()

    def _gradient_hooks(
        self, layer: MaskedLayer
    ) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
        def before(_: Tensor) -> None:
            self._dense.before(layer)

        def masked(parameter: Tensor) -> None:
            if parameter.grad is None:
                return
            if self._dense.wanted(self.is_update_step()):
                self._dense.add(layer, parameter.grad)
            zero_where_not_(parameter.grad.detach(), self._gate(layer))
            stamp(parameter.grad)
            self._pushed.discard(layer.name)

        return before, masked

    def before_step(
        self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """An optimizer is about to make a step; any optimizer of the process.

        With a closure the gradients come within the step: it is wrapped. Else they are there.
        """
        layers = self._held_by(optimizer)
        if not layers:
            return None
        if not any(known is optimizer for known in self.optimizers):
            for layer in layers:
                optimizer_state.check([optimizer], layer.parameter)
            self.optimizers = (*self.optimizers, optimizer)
            self._note_unsteady()
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and bool(overflow):
            # A fused optimizer is called in steps that the scaler skips, and does nothing.
            self._skipping.add(id(optimizer))
            for layer in layers:
                self._dense.drop(layer)
            return None
        self._skipping.discard(id(optimizer))
        given = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(given):
            self._prepare(optimizer, layers)
            return None

        def closure(*inner: Any, **named: Any) -> Any:
            for layer in layers:
                self._reserve.split_again(layer)
            loss = given(*inner, **named)
            self._prepare(optimizer, layers)
            return loss

        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure}

    def after_step(self, optimizer: Optimizer) -> None:
        """An optimizer has made its step."""
        if id(optimizer) in self._skipping:
            self._skipping.discard(id(optimizer))
            self._overflowed = True
            return
        layers = self._held_by(optimizer)
        for layer in layers:
            self._reserve.split_again(layer)
        self._stepped |= bool(layers)

    def _note_unsteady(self) -> None:
        self._unsteady = [
            layer
            for layer in self.layers.values()
            if optimizer_state.is_unsteady(self.optimizers, layer.parameter)
        ]

    def _held_by(self, optimizer: Optimizer) -> list[MaskedLayer]:
        held = (
            self._ids.get(id(parameter))
            for group in optimizer.param_groups
            for parameter in group["params"]
        )
        return [layer for layer in held if layer is not None]

    def _prepare(self, optimizer: Optimizer, layers: Sequence[MaskedLayer]) -> None:
        """Gradients are what the optimizer will use: note them, mask them, push."""
        updates = self.is_update_step()
        wanted = self._dense.wanted(updates)
        scale = getattr(optimizer, "grad_scale", None)
        scale = 1.0 if scale is None else float(scale)
        for layer in layers:
            if wanted:
                self._dense.use(layer, scale)
            gradient = layer.parameter.grad
            if gradient is not None:
                if not untouched(gradient):
                    zero_where_not_(gradient.detach(), self._gate(layer))
                    stamp(gradient)
                if updates and not wanted:
                    self._alive |= alive_parts(layer, gradient)
            if updates and self._replace_step:
                continue
            self._reserve.merge(layer)
            if gradient is not None and layer.name not in self._pushed:
                self._push(layer, gradient, scale)
        if updates and self._replace_step:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def _push(self, layer: MaskedLayer, gradient: Tensor, scale: float) -> None:
        """What draws weights to zero, once for each gradient."""
        if self.algorithm.dense_weights and layer.name not in self._reserve.pulls:
            mask = whole(layer.mask.detach())
            density = int(mask.count_nonzero()) / mask.numel()
            self._reserve.pulls[layer.name] = self.algorithm.pulls(density)
        pushed = self._reserve.pull(layer, gradient, scale)
        if self._regulariser is not None:
            weight = layer.layout.stacked(layer.parameter.detach())
            strength = self._regulariser.strength_at(self.plan.progress(self.steps))
            push = self._regulariser.gradient(weight)
            push = layer.layout.unstacked(push, layer.weight_shape).to(gradient.dtype)
            zero_where_not_(push, self._gate(layer))
            gradient.add_(push, alpha=strength * scale)
            pushed = True
        if pushed:
            self._pushed.add(layer.name)
            stamp(gradient)

    def _new_round(self) -> None:
        """What is known of the steps since the last call of `step`."""
        self._stepped = False
        self._overflowed = False
        self._skipping: set[int] = set()
        self._pushed: set[str] = set()
        self._alive: dict[str, bool] = {}

    def _note_versions(self) -> None:
        self._versions = {n: layer.parameter._version for n, layer in self.layers.items()}

    def _check_idle(self) -> None:
        """No optimizer has made a step: did a scaler skip it, or is the model trained otherwise?

        Raises:
            InputError: weights have changed all the same, or this goes on for ever.
        """
        self._idle = 0 if self._overflowed else self._idle + 1
        moved = [n for n, v in self._versions.items() if self.layers[n].parameter._version != v]
        self._note_versions()
        replaced = [n for n, one in self.layers.items() if id(one.parameter) not in self._ids]
        if replaced:
            raise InputError(
                f"step: the weight of layer {replaced[0]!r} is another tensor than it was; shard "
                "or replace weights first (fully_shard), then make the optimizer, then sparsify"
            )
        if moved and not self._overflowed:
            raise InputError(
                f"step: the weight of layer {moved[0]!r} has changed, but no torch.optim.Optimizer "
                "that holds it has made a step since the last call; train it by one"
            )
        if self._idle >= _PATIENCE:
            raise InputError(
                f"step: no optimizer that holds a masked weight made a step in {_PATIENCE} calls; "
                "call optimizer.step() before each"
            )


def check_free(layers: Iterable[MaskedLayer]) -> None:
    """An InputError if another sparsifier has a mask on one of these weights.

    A mask that came with a copy of a model, or with a model that was loaded, belongs to nobody.
    """
    mine = list(layers)
    for other in steps.watchers():
        for known in other.layers.values():
            for layer in mine:
                if known.module is layer.module and known.attribute == layer.attribute:
                    raise InputError(
                        f"layer {layer.name!r}: has a mask already; call remove() on its "
                        "Sparsifier first"
                    )


def alive_parts(layer: MaskedLayer, gradient: Tensor) -> dict[str, bool]:
    """Part → whether its gradient is other than 0 somewhere."""
    gradient = whole(gradient.detach())
    if layer.layout.groups == 1:
        return {layer.name: bool(gradient.any())}
    each = (gradient != 0).flatten(1).any(1).tolist()
    return dict(zip(layer.parts, each, strict=True))
