"""Which weights of a model are masked, and how one masked weight is handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from hwsim.errors import InputError, unknown
from hwsim.mask import Mask
from sparse_train.masking.bits import placed_as, whole, zero_where_not_
from sparse_train.masking.kinds import STORED_OUT_IN, Layout, weights_of
from sparse_train.naming import layer_name

_DIVIDES = "a norm divides by the size of each neuron's weights, of which none may be left"
Selector = str | type | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, eq=False)
class MaskedLayer:
    """One masked weight: the parameter `attribute` of `module`, its mask a buffer beside it.

    Attributes:
        layout: how its matrices lie in the tensor.
        product: whether its module's kind says that it is the weight of a product.
        recurrent: whether its module feeds its output back.
    """

    name: str
    module: nn.Module
    attribute: str
    layout: Layout = STORED_OUT_IN
    product: bool = True
    recurrent: bool = False

    @property
    def parameter(self) -> nn.Parameter:
        """The weight as the optimizer has it."""
        return getattr(self.module, self.attribute)

    @property
    def buffer(self) -> str:
        """Name of the buffer that holds the mask."""
        return f"{self.attribute}_mask"

    @property
    def mask(self) -> Tensor:
        """Boolean, of the weight's own shape."""
        return getattr(self.module, self.buffer)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As the module has it, not as the mask."""
        return tuple(self.parameter.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in); of several matrices, one on top of the other."""
        n_out, n_in = self.layout.matrix(self.weight_shape)
        return self.layout.groups * n_out, n_in

    @property
    def parts(self) -> dict[str, slice]:
        """Name → rows of each matrix that has a mask of its own: one, or one for each expert."""
        if self.layout.groups == 1:
            return {self.name: slice(None)}
        rows = self.shape[0] // self.layout.groups
        return {
            f"{self.name}[{group}]": slice(group * rows, (group + 1) * rows)
            for group in range(self.layout.groups)
        }

    @property
    def part_dims(self) -> tuple[int, ...]:
        """Sizes of one part, as a distribution sees them: (out, in, kernel…)."""
        return self.layout.dims(self.weight_shape)

    def check(self) -> None:
        """An InputError if a weight is NaN or infinite."""
        if not bool(torch.isfinite(whole(self.parameter.detach())).all()):
            raise InputError(
                f"layer {self.name!r}: its weight has NaN or infinity; allowed is finite"
            )

    def add_mask(self) -> None:
        """Register the buffer, all True."""
        mask = torch.ones_like(self.parameter, dtype=torch.bool)
        self.module.register_buffer(self.buffer, mask)

    def remove_mask(self) -> None:
        """Takes the buffer off the module."""
        delattr(self.module, self.buffer)

    def set_mask(self, array: np.ndarray | Tensor) -> None:
        """Take over a mask of shape (n_out, n_in)."""
        self.mask.copy_(self.tensor(array))

    def tensor(self, array: np.ndarray | Tensor) -> Tensor:
        """A copy of an array (n_out, n_in), in the weight's shape and on its device."""
        matrix = array.clone() if isinstance(array, Tensor) else torch.from_numpy(array.copy())
        return placed_as(self.layout.unstacked(matrix, self.weight_shape), self.parameter)

    def mask_array(self) -> np.ndarray:
        """A copy of the mask, (n_out, n_in)."""
        return self.layout.stacked(whole(self.mask.detach()).cpu()).numpy().copy()

    def snapshots(self) -> dict[str, Mask]:
        """Part → mask."""
        array = self.mask_array()
        return {part: Mask(array[rows], copy=False) for part, rows in self.parts.items()}

    def array(self, values: Tensor) -> np.ndarray:
        """A tensor of the weight's shape as float32 (n_out, n_in); a view where it can be one."""
        return self.layout.stacked(whole(values.detach()).to("cpu", torch.float32)).numpy()

    def matrix(self, values: Tensor) -> Tensor:
        """A tensor of the weight's shape as float32 (n_out, n_in), on its own device."""
        return self.layout.stacked(whole(values.detach()).to(torch.float32))

    def mask_matrix(self) -> Tensor:
        """A copy of the mask, (n_out, n_in), on its own device."""
        return self.layout.stacked(whole(self.mask.detach())).clone()

    def zero_inactive(self) -> None:
        """Sets inactive weights to 0."""
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
        chosen: None for every weight of a product (`kinds.layout_of`) but the output layer's;
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
            if not layer.product:
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


def _weights(model: nn.Module) -> list[MaskedLayer]:
    """Every parameter of rank 2 or more, with its owner, in the model's order."""
    found: list[MaskedLayer] = []
    for weight in weights_of(model):
        if isinstance(getattr(weight.module, weight.attribute), nn.UninitializedParameter):
            raise InputError(
                f"model: {weight.name} has no shape yet; run one batch through the model first"
            )
        found.append(
            MaskedLayer(
                layer_name(weight.name), weight.module, weight.attribute,
                weight.layout or STORED_OUT_IN, weight.layout is not None, weight.recurrent,
            )
        )  # fmt: skip
    # A norm's gain stands beside the weight that it scales: only one of them has the layer's name.
    taken = {layer.name for layer in found if layer.product}
    return [layer for layer in found if layer.product or layer.name not in taken]


def _output_layer(weights: list[MaskedLayer]) -> MaskedLayer | None:
    """The last product in the model's order that is not fed back; none where it is the only one."""
    fit = [layer for layer in weights if layer.product]
    ends = [layer for layer in fit if not layer.recurrent and layer.layout.groups == 1]
    return ends[-1] if len(fit) > 1 and ends else None


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
    return _norm_or_filling(layer)


def _norm_or_filling(layer: MaskedLayer) -> str:
    """Why a weight that becomes another one before it is used cannot be masked; empty if it can."""
    if layer.attribute == "weight_v" and hasattr(layer.module, "weight_g"):
        return _DIVIDES
    if not isinstance(layer.module, ParametrizationList):
        return ""
    held = layer.parameter.detach().clone()
    off = torch.zeros_like(held, dtype=torch.bool)
    off.view(-1)[::2] = True
    off[0] = True
    modes = [(module, module.training) for module in layer.module.modules()]
    try:
        layer.module.eval()  # so that a spectral norm does not make a power iteration
        layer.parameter.data[off] = 0
        with torch.no_grad():
            image = layer.module()
    finally:
        layer.parameter.data.copy_(held)
        for module, training in modes:
            module.training = training
    if not bool(torch.isfinite(image).all()):
        return _DIVIDES
    zero = image.shape == held.shape and not bool(image[off].any())
    return "" if zero else "its parametrization does not leave a zero weight zero"


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
        return layer.product and fnmatchcase(layer.name, selector)
    if isinstance(selector, type):
        return isinstance(layer.module, selector)
    return bool(selector(layer.name, layer.module))
