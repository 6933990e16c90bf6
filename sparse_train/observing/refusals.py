"""Models as they can be observed, and those that cannot be, each said in one line."""

from __future__ import annotations

import torch
from torch import nn

from hwsim.errors import InputError


def observable(model: nn.Module) -> nn.Module:
    """The model itself, out of what compiles or distributes it.

    Raises:
        InputError: a scripted model, DataParallel, complex weights, sparse embeddings.
    """
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        inner = getattr(model, "_orig_mod", None) or model.module
        model = inner  # type: ignore[assignment]
    for name, module in model.named_modules():
        where = f"model: {name or type(model).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{where} is scripted (torch.jit), which hides its operators; allowed is the "
                "module that was scripted"
            )
        if isinstance(module, nn.DataParallel):
            raise InputError(
                f"{where} is DataParallel, which has several replicas; allowed is its .module"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise InputError(
                f"{where} has sparse=True, whose gradients have no fixed size; allowed is "
                "sparse=False"
            )
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            raise InputError(
                f"model: {name} is {parameter.dtype}; allowed are real weights, such as "
                "torch.view_as_real of it"
            )
    return model
