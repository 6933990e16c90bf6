"""Which parameters are weights of products, and how each lies in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from sparse_train.private_torch import AnyConv, AnyTransposedConv

_WEIGHT = ("weight", "weight_orig", "weight_v")  # by torch's prune, spectral norm, weight norm
_ORIGINAL = ("original", "original1")  # of a parametrized weight; original0 is a norm's gain
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_SIZES = (("in_features", "out_features"), ("in_channels", "out_channels"), ("nx", "nf"))
_HIDDEN = ("hidden_size", "hidden_dim", "embed_dim", "d_model")


@dataclass(frozen=True)
class Layout:
    """How a weight's matrices (n_out, n_in) lie in its tensor.

    Attributes:
        transposed: the tensor's first axis (after the groups') is the inputs': (in, out, …).
        groups: the first axis counts matrices of their own (experts); 1 for a single matrix.
    """

    transposed: bool = False
    groups: int = 1

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Sizes of one group's weight, as a distribution sees them: (out, in, kernel…)."""
        own = tuple(shape[1:] if self.groups > 1 else shape)
        return (own[1], own[0], *own[2:]) if self.transposed else own

    def matrix(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(n_out, n_in) of one group; the kernel goes with the axis that it follows."""
        own = tuple(shape[1:] if self.groups > 1 else shape)
        first, rest = own[0], math.prod(own[1:])
        return (rest, first) if self.transposed else (first, rest)

    def stacked(self, values: Tensor) -> Tensor:
        """(groups · n_out, n_in), contiguous; a view where it can be one."""
        n_out, n_in = self.matrix(tuple(values.shape))
        if not self.transposed:
            return values.reshape(self.groups * n_out, n_in).contiguous()
        grouped = values.reshape(self.groups, n_in, n_out).transpose(1, 2)
        return grouped.reshape(self.groups * n_out, n_in).contiguous()

    def unstacked(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `stacked`, contiguous in the weight's own shape."""
        n_out, n_in = self.matrix(shape)
        if self.transposed:
            matrix = matrix.reshape(self.groups, n_out, n_in).transpose(1, 2)
        return matrix.reshape(shape).contiguous()


STORED_OUT_IN = Layout()


@dataclass(frozen=True)
class Weight:
    """A parameter of rank 2 or more: its name, its owner, and what is known of it.

    `layout` is None where the kind of its module does not say that it is a product's weight.
    """

    name: str
    module: nn.Module
    attribute: str
    layout: Layout | None
    recurrent: bool = False


def weights_of(model: nn.Module) -> Iterator[Weight]:
    """Every parameter of rank 2 or more, in the model's order; each module once."""
    modules = dict(model.named_modules())
    for path, module in modules.items():
        owner, original = module, False
        if isinstance(module, ParametrizationList):
            above, _, what = path.rpartition("parametrizations.")
            owner, original = modules[above.removesuffix(".")], what == "weight"
        for attribute, parameter in module.named_parameters(recurse=False):
            if not isinstance(parameter, nn.UninitializedParameter) and parameter.ndim < 2:
                continue
            name = f"{path}.{attribute}" if path else attribute
            if owner is not module:
                # A shape (n, 1) beside a larger original is the gain of a norm.
                called = "weight" if original and attribute in _ORIGINAL else ""
            else:
                called = attribute
            layout = None if _low_rank(path) else layout_of(owner, called, parameter)
            recurrent = isinstance(owner, (nn.RNNBase, nn.RNNCellBase))
            yield Weight(name, module, attribute, layout, recurrent)


def layout_of(module: nn.Module, attribute: str, parameter: Tensor) -> Layout | None:
    """The layout of a module's weight by the module's kind; None if it is none.

    Linear, convolutions (transposed ones too), recurrent layers and attention of torch; any module
    that has in_features and out_features (or in_channels and out_channels, or nx and nf, as GPT-2's
    Conv1D) and a matrix `weight` of these sizes; stacked experts (num_experts, a, b).
    """
    if isinstance(parameter, nn.UninitializedParameter):
        return None
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return Layout() if attribute.startswith("weight_") else None
    if isinstance(module, nn.MultiheadAttention):
        return Layout() if attribute in _ATTENTION else None
    if (experts := getattr(module, "num_experts", None)) and parameter.ndim == 3:
        return _of_experts(module, attribute, parameter) if experts == len(parameter) else None
    if attribute not in _WEIGHT:
        return None
    if isinstance(module, AnyTransposedConv):
        return Layout(transposed=True)
    if isinstance(module, (AnyConv, nn.Linear)):
        return Layout()
    return _by_sizes(module, parameter)


def _by_sizes(module: nn.Module, parameter: Tensor) -> Layout | None:
    if parameter.ndim != 2 or isinstance(module, nn.Bilinear):
        return None
    for one, other in _SIZES:
        n_in, n_out = getattr(module, one, None), getattr(module, other, None)
        if type(module).__name__ == "Conv1D" and n_in is None:
            n_in = parameter.shape[0]  # older versions keep the outputs' size alone
        if (n_in, n_out) == tuple(parameter.shape) and (
            n_in != n_out or type(module).__name__ == "Conv1D"
        ):
            return Layout(transposed=True)
        if (n_out, n_in) == tuple(parameter.shape):
            return Layout()
    return None


def _of_experts(module: nn.Module, attribute: str, parameter: Tensor) -> Layout:
    """Which side is the output: the module may say so; else its hidden size tells."""
    groups = len(parameter)
    said = getattr(module, "is_transposed", None)
    if isinstance(said, bool):
        return Layout(said, groups)
    hidden = next((h for n in _HIDDEN if (h := getattr(module, n, None)) is not None), None)
    back = any(part in attribute for part in ("down", "w2", "out", "output"))
    first, last = parameter.shape[1:]
    if hidden is None or first == last:
        return Layout(False, groups)
    return Layout((last if back else first) == hidden, groups)


def _low_rank(path: str) -> bool:
    """Whether a module lies in an adapter: the factors of a product, not its weight."""
    return any(part.startswith("lora_") for part in path.split("."))
