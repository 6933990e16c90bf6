"""The values that inactive weights keep, for algorithms that train them unseen (Top-KAST, SR-STE).

The model holds weight · mask, or what the algorithm shows in its place (S-STE), so that its forward
and backward are its own. The rest is held here, and put back for the optimizer's step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparse_train.masking.bits import zero_where_not_
from sparse_train.masking.layers import MaskedLayer


class Reserve:
    """Empty, and without effect, unless layers have been split.

    Args:
        show: gives what the model is to hold of a layer's weight; None for weight · mask.

    Attributes:
        values: layer name → weight less what the model holds, most often weight · (1 − mask).
        trained: layer name → bool, where the optimizer trains.
        pulls: layer name → (a, b): a·w is added to the gradient of active, b·w of other weights;
            they follow from masks, so that a layer whose mask is new has none yet.
    """

    def __init__(self, show: Callable[[MaskedLayer, Tensor], Tensor | None]) -> None:
        self._show = show
        self.values: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] = {}
        self.pulls: dict[str, tuple[float, float]] = {}
        self._merged: set[str] = set()

    def split(self, layer: MaskedLayer) -> None:
        """Move what the model does not see of a weight from there to here."""
        weight = layer.parameter.data
        shown = self._show(layer, weight)
        unseen = weight.clone()
        if shown is None:
            zero_where_not_(unseen, ~layer.mask)
            zero_where_not_(weight, layer.mask)
        else:
            unseen.sub_(shown)
            weight.copy_(shown)
        known = self.values.get(layer.name)
        self.values[layer.name] = unseen if known is None else known.add_(unseen)
        self._merged.discard(layer.name)

    def merge(self, layer: MaskedLayer) -> None:
        """Move those that are trained back, for the optimizer to see.

        What is not trained stays here: weight decay would move it otherwise.
        """
        if layer.name in self.values and layer.name not in self._merged:
            trained = self.values[layer.name].clone()
            zero_where_not_(trained, self.trained[layer.name])
            layer.parameter.data.add_(trained)
            zero_where_not_(self.values[layer.name], ~self.trained[layer.name])
            self._merged.add(layer.name)

    def split_again(self, layer: MaskedLayer) -> None:
        """Takes inactive values out of sight again where they were merged for a step."""
        if layer.name in self._merged:
            self.split(layer)

    def whole(self, layer: MaskedLayer) -> Tensor:
        """All values of a weight, wherever they are held now."""
        weight = layer.parameter.detach()
        held = self.values.get(layer.name)
        return weight if held is None else weight + held

    def pull(self, layer: MaskedLayer, gradient: Tensor, scale: float) -> bool:
        """Add the pulls to zero to a merged layer's gradient, where it is trained; if any."""
        active, other = self.pulls.get(layer.name, (0.0, 0.0))
        if active == 0.0 and other == 0.0:
            return False
        push = layer.parameter.detach() * torch.where(layer.mask, active, other)
        push = push.to(gradient.dtype)
        zero_where_not_(push, self.trained[layer.name])
        gradient.add_(push, alpha=scale)
        return True

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Inactive values, and which weights are trained, by layer."""
        return {"values": self.values, "trained": self.trained}

    def load(self, values: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        self.values, self.trained = dict(values), dict(trained)
        self.pulls.clear()
        self._merged.clear()
