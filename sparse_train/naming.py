"""What a layer is called: the same name in masks, workloads, records and reports."""

from __future__ import annotations

from collections.abc import Mapping

# Layer name → weight shape as torch has it: (out, in) or (out, in, kernel height, …).
Shapes = Mapping[str, tuple[int, ...]]

# What torch puts around a module or a weight, and what people do not call it by.
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_WEIGHTS = (
    ".parametrizations.weight.original", ".parametrizations.weight.original1",
    ".weight_orig", ".weight_v", ".weight",
)  # fmt: skip


def layer_name(parameter_name: str) -> str:
    """The layer that owns a weight, from the weight's qualified name in the model.

    `encoder.0.ffn.up.weight` is layer `encoder.0.ffn.up`, also where the weight is parametrized,
    pruned or normalised by torch's tools, or the model compiled. Weights that are not called
    `weight` keep their name, since one module can own several (`attn.in_proj_weight` of
    nn.MultiheadAttention).

    >>> layer_name("encoder.0.query.weight")
    'encoder.0.query'
    >>> layer_name("_orig_mod.0.parametrizations.weight.original")
    '0'
    """
    for wrapper in _WRAPPERS:
        parameter_name = parameter_name.replace(wrapper, "")
    for ending in _WEIGHTS:
        if parameter_name.endswith(ending):
            return parameter_name.removesuffix(ending)
    return parameter_name


def mask_shape(weight_shape: tuple[int, ...]) -> tuple[int, int]:
    """(n_out, n_in) of the mask of a weight: a convolution's trailing axes are its inputs.

    >>> mask_shape((32, 3, 3, 3))
    (32, 27)
    """
    n_in = 1
    for size in weight_shape[1:]:
        n_in *= size
    return weight_shape[0], n_in
