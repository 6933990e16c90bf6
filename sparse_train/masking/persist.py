"""Masks go with their model wherever it is saved, loaded or copied.

The hooks name the weight by its attribute, and find the rest through the module that they are
called with: a copy of the module has hooks of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from sparse_train.masking.bits import zero_where_not_


def attach(module: nn.Module, attribute: str) -> list[Any]:
    """Handles of what keeps a masked module's states whole."""
    return [
        module.register_state_dict_post_hook(partial(_saved, attribute)),
        module.register_load_state_dict_post_hook(partial(_loaded, attribute)),
    ]


def attach_root(model: nn.Module) -> Any:
    """The handle of what hands a model's state its masks before anything else of it is loaded."""
    return model.register_load_state_dict_pre_hook(_masks_first)


def _masks_first(model: nn.Module, state: Any, prefix: str, *_: Any) -> None:
    for path, module in model.named_modules():
        for name, mask in module.named_buffers(recurse=False):
            saved = state.get(f"{prefix}{path}.{name}" if path else f"{prefix}{name}")
            masked = name.endswith("_mask") and hasattr(module, name.removesuffix("_mask"))
            if masked and isinstance(saved, torch.Tensor) and saved.shape == mask.shape:
                mask.copy_(saved)


def _saved(attribute: str, module: nn.Module, state: Any, prefix: str, _: Any) -> None:
    """A module that saves itself in its own way may leave out buffers that it does not know."""
    mask = getattr(module, f"{attribute}_mask", None)
    if mask is not None:
        state.setdefault(f"{prefix}{attribute}_mask", mask.detach())


def _loaded(attribute: str, module: nn.Module, _: Any) -> None:
    """Weights that came without a mask, or with another one, are zero where inactive."""
    mask, weight = getattr(module, f"{attribute}_mask", None), getattr(module, attribute, None)
    if isinstance(mask, torch.Tensor) and isinstance(weight, nn.Parameter):
        zero_where_not_(weight.data, mask)


def detach(module: nn.Module, attribute: str) -> None:
    """Take off what `attach` put on, of a copy whose handles nobody has."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_post_hooks):
        for key, hook in list(hooks.items()):
            known: Any = hook
            ours = isinstance(hook, partial) and known.func in (_saved, _loaded)
            if ours and known.args == (attribute,):
                del hooks[key]
