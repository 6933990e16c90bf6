"""Which weights of a model are masked, and how one masked weight is handled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import InputError, unknown
from hwsim.mask import Mask
from sparse_train.masking._bits import zero_bits
from sparse_train.naming import layer_name, mask_shape

Selector = str | type | Callable[[str, nn.Module], bool]
MASKABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_where_not_(values: Tensor, mask: Tensor) -> None:
    """Set `values` to +0 where `mask` is False, in place.

    The bits are multiplied, as integers: NaN and infinity become 0 as well, and −0 does not arise.
    On the CPU one fused pass does it; elsewhere torch.
    """
    bits = values.detach().view(_BITS[values.element_size()])
    if bits.device.type == "cpu" and bits.is_contiguous() and mask.is_contiguous():
        zero_bits(bits.view(-1).numpy(), mask.view(-1).view(torch.uint8).numpy())
    else:
        bits.mul_(mask)


@dataclass(frozen=True, eq=False)
class MaskedLayer:
    """One masked weight: the parameter `attribute` of `module`, its mask a buffer beside it."""

    name: str
    module: nn.Module
    attribute: str

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.module, self.attribute)

    @property
    def buffer(self) -> str:
        return f"{self.attribute}_mask"

    @property
    def mask(self) -> Tensor:
        """Boolean, of the weight's own shape."""
        return getattr(self.module, self.buffer)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return mask_shape(self.weight_shape)

    def check(self) -> None:
        """An InputError if there is a mask already, or a weight that is NaN or infinite."""
        if hasattr(self.module, self.buffer):
            raise InputError(
                f"layer {self.name!r}: has a mask already; call remove() on its Sparsifier first"
            )
        if not bool(torch.isfinite(self.parameter).all()):
            raise InputError(
                f"layer {self.name!r}: its weight has NaN or infinity; allowed is finite"
            )

    def add_mask(self) -> None:
        """Register the buffer, all True."""
        mask = torch.ones_like(self.parameter, dtype=torch.bool)
        self.module.register_buffer(self.buffer, mask)

    def remove_mask(self) -> None:
        delattr(self.module, self.buffer)

    def set_mask(self, array: np.ndarray) -> None:
        """Take over a mask of shape (n_out, n_in)."""
        self.mask.copy_(self.tensor(array))

    def tensor(self, array: np.ndarray) -> Tensor:
        """A copy of an array (n_out, n_in), in the weight's shape and on its device."""
        return torch.from_numpy(array.copy()).view(self.weight_shape).to(self.parameter.device)

    def mask_array(self) -> np.ndarray:
        """A copy of the mask, (n_out, n_in)."""
        return self.mask.detach().cpu().numpy().reshape(self.shape).copy()

    def snapshot(self) -> Mask:
        return Mask(self.mask_array(), copy=False)

    def array(self, values: Tensor) -> np.ndarray:
        """A tensor of the weight's shape as float32 (n_out, n_in); a view where it can be one."""
        return values.detach().to("cpu", torch.float32).reshape(self.shape).numpy()

    def zero_inactive(self) -> None:
        zero_where_not_(self.parameter.data, self.mask)


@dataclass(frozen=True)
class Selection:
    """The chosen layers, why each other weight of rank 2 or more was left out, and the output."""

    layers: tuple[MaskedLayer, ...]
    skipped: dict[str, str]
    output_layer: str | None


def select_layers(
    model: nn.Module,
    chosen: Selector | Sequence[Selector] | None,
    trained: set[int] | None,
) -> Selection:
    """The weights to mask.

    Args:
        model: any module.
        chosen: None for every Linear, Conv and MultiheadAttention weight but the output layer's;
            "all" for these with the output layer; else layer names, patterns of names ("*.ffn.*"),
            module types or functions (name, module) → bool, one or a list of them.
        trained: ids of the parameters that the optimizers hold; None if there is no optimizer.

    Raises:
        InputError: a selector that matches nothing, a chosen weight that cannot be masked (rank 1,
            empty, frozen, shared by two modules, not in the optimizer), or nothing to mask.
    """
    weights = list(_weights(model))
    reasons = {layer.name: _unfit(layer, weights, trained) for layer in weights}
    head = _output_layer(weights)
    if chosen is None or chosen == "all":
        kept, skipped = [], {}
        for layer in weights:
            if not isinstance(layer.module, MASKABLE):
                skipped[layer.name] = f"{type(layer.module).__name__} is not masked unless named"
            elif layer is head and chosen is None:
                skipped[layer.name] = "output layer"
            elif reasons[layer.name]:
                skipped[layer.name] = reasons[layer.name]
            else:
                kept.append(layer)
    else:
        several = isinstance(chosen, Sequence) and not isinstance(chosen, str)
        kept = _named(model, weights, chosen if several else [chosen])
        for layer in kept:
            if reasons[layer.name]:
                raise InputError(f"layer {layer.name!r}: cannot be masked: {reasons[layer.name]}")
        skipped = {layer.name: "not chosen" for layer in weights if layer not in kept}
    if not kept:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise InputError(
            f"layers: nothing to mask in {type(model).__name__} ({why or 'no weight'})"
        )
    return Selection(tuple(kept), skipped, head.name if head in kept and head else None)


def _weights(model: nn.Module) -> Iterator[MaskedLayer]:
    """Every parameter of rank 2 or more, with its owner, in the model's order."""
    for module_name, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, nn.UninitializedParameter):
                raise InputError(
                    f"model: {module_name}.{attribute} has no shape yet; run one batch through "
                    "the model first"
                )
            if parameter.ndim >= 2:
                name = f"{module_name}.{attribute}" if module_name else attribute
                yield MaskedLayer(layer_name(name), module, attribute)


def _output_layer(weights: list[MaskedLayer]) -> MaskedLayer | None:
    """The last Linear or Conv in the model's order; none where it is the only one."""
    fit = [layer for layer in weights if isinstance(layer.module, MASKABLE)]
    return fit[-1] if len(fit) > 1 else None


def _unfit(layer: MaskedLayer, weights: list[MaskedLayer], trained: set[int] | None) -> str:
    """Why a weight cannot be masked; empty if it can."""
    parameter = layer.parameter
    owners = [w.name for w in weights if w.parameter is parameter]
    if parameter.numel() == 0:
        return f"shape {tuple(parameter.shape)} has no element"
    if not parameter.is_floating_point():
        return f"dtype is {parameter.dtype}; allowed is floating point"
    if len(owners) > 1:
        return f"its weight is shared by {' and '.join(owners)}"
    if not parameter.requires_grad:
        return "it is frozen (requires_grad is False)"
    if trained is not None and id(parameter) not in trained:
        return "it is not in the optimizer"
    return ""


def _named(
    model: nn.Module, weights: list[MaskedLayer], chosen: Sequence[Selector]
) -> list[MaskedLayer]:
    names = [layer.name for layer in weights]
    kept: list[MaskedLayer] = []
    for selector in chosen:
        found = [layer for layer in weights if _matches(selector, layer)]
        if not found:
            if isinstance(selector, str) and selector in dict(model.named_parameters()):
                raise InputError(f"layer {selector!r}: rank is 1; allowed is 2 or more")
            raise InputError(unknown("layer", selector, names))
        kept += [layer for layer in found if layer not in kept]
    return sorted(kept, key=weights.index)


def _matches(selector: Selector, layer: MaskedLayer) -> bool:
    if isinstance(selector, str):
        if selector == layer.name:
            return True
        return isinstance(layer.module, MASKABLE) and fnmatchcase(layer.name, selector)
    if isinstance(selector, type):
        return isinstance(layer.module, selector)
    return bool(selector(layer.name, layer.module))
