"""What an ATen operator is to a Workload: its kind, its traffic, its products."""

from __future__ import annotations

from collections.abc import Callable
from math import log2, prod
from typing import Any

import torch
from torch import Tensor

from hwsim.errors import InputError
from hwsim.workload import DTYPE_BYTES
from sparse_train.private_torch import flop_formulas

# Operators without arithmetic or traffic that are no views by their schema.
FREE = {
    "_unsafe_view", "detach", "lift_fresh", "device", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided", "_local_scalar_dense", "sym_size", "sym_stride",
    "is_same_size", "_reshape_alias", "as_strided_", "resize_", "set_",
    "record_stream", "layout", "dim",
}  # fmt: skip
# (left, right) argument of the two-operand matrix products.
MATMULS = {
    "mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "mv": (0, 1), "addmv": (1, 2),
    "_scaled_mm": (0, 1), "_int_mm": (0, 1), "addbmm": (1, 2), "_grouped_mm": (0, 1),
}  # fmt: skip
CONVOLUTIONS = ("convolution", "_convolution", "convolution_overrideable")
ATTENTION_BACKWARD = {
    "_scaled_dot_product_flash_attention_backward",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_scaled_dot_product_efficient_attention_backward",
    "_scaled_dot_product_cudnn_attention_backward",
    "_scaled_dot_product_fused_attention_overrideable_backward",
}
ATTENTION = {name.removesuffix("_backward") for name in ATTENTION_BACKWARD}
# A copy of a parameter is still that parameter: casts (autocast), layouts, masked, normalised.
WEIGHT_COPIES = ("_to_copy", "clone", "contiguous", "mul", "_weight_norm_interface")
_GATHERS = ("embedding", "index", "index_select", "gather", "take", "_unsafe_index")
_NORMS = ("layer_norm", "batch_norm", "group_norm", "rms_norm", "instance_norm", "linalg_vector")
ROWS = ("norm", "softmax")
_LOSSES = ("loss", "binary_cross_entropy", "kl_div", "cosine_embedding")
# Copies and gathers, which compute nothing.
_MOVES = {
    "clone", "copy_", "_to_copy", "contiguous", "cat", "stack", "fill_", "zero_", "zeros",
    "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_full", "arange",
    "scalar_tensor", "scatter", "index_put_", "select_backward", "slice_backward", "repeat",
    "constant_pad_nd", "masked_fill", "roll", "flip", *_GATHERS,
}  # fmt: skip
# Part of an operator's name → FLOPs per element, counted off its formula; each exp, tanh, erf or
# root is one. Assumed: no hardware counts them alike. One for what is not listed.
_FLOPS_PER_ELEMENT = (
    ("layer_norm", 8), ("batch_norm", 8), ("group_norm", 8), ("rms_norm", 5), ("softmax", 5),
    ("mse_loss", 3), ("cross_entropy", 5), ("smooth_l1_loss", 4), ("gelu", 8), ("silu", 5),
    ("dropout", 2), ("addcmul", 3),
)  # fmt: skip
# Parts of names of operators that compute little and move each operand once: reductions, pooling,
# resampling, sorting. With torch's tag for elementwise operators, what is understood.
_STREAMS = (
    "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "var", "std", "norm", "pool",
    "upsample", "interpolate", "sort", "topk", "cumsum", "cumprod", "any", "all", "prod", "pad",
    "dropout", "bernoulli", "uniform", "normal", "rand", "softmax", "loss", "embedding", "index",
    "unique", "nonzero", "hard", "elu", "relu", "mish", "softplus",
    "threshold", "bincount", "scatter", "gather", "tril", "triu", "im2col", "col2im",
    "grid_sampler", "pixel_", "channel_shuffle", "linspace", "one_hot", "searchsorted", "entropy",
    "logsumexp", "masked_select", "glu", "lerp", "where", "copy", "split_with_sizes", "bucketize",
    "repeat_interleave", "count_nonzero", "masked_fill", "arange", "full", "ones", "zeros", "roll",
    "histc", "multinomial", "segment", "diagonal", "median",
    "kthvalue", "_foreach", "_fused", "rnn", "lstm_cell", "gru_cell", "rope", "eye", "complex",
)  # fmt: skip
_FORMULAS: dict[str, Callable[..., float]] = {}
_DTYPE_NAMES = {
    torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16",
    torch.float16: "float16", torch.int8: "int8", torch.uint8: "int8", torch.bool: "int8",
}  # fmt: skip


def operator_name(func: Any) -> str:
    """`addmm` of `aten.addmm.default`."""
    return func._schema.name.split("::")[-1]


def kind_of(name: str) -> str:
    """The kind of an operator that is no product."""
    if "softmax" in name:
        return "softmax"
    if "embedding" in name and "loss" not in name:
        return "embedding"
    if any(part in name for part in _LOSSES):
        return "loss"
    return "norm" if any(part in name for part in _NORMS) else "elementwise"


def dtype_name(dtype: torch.dtype) -> str:
    """The name in hwsim; integers that hwsim has no name for go as the float of their width."""
    if "float8" in str(dtype):
        return "float8"
    named = _DTYPE_NAMES.get(dtype)
    if named is None:
        named = "float64" if dtype.itemsize >= 8 else "float32"
    assert named in DTYPE_BYTES
    return named


def register_formula(operator: str, flops: Callable[..., float]) -> None:
    """Teaches the observer an operator of one's own.

    Args:
        operator: its name with namespace, "mylib::op".
        flops: (args, kwargs, output) → floating-point operations, 2 per multiply-add.

    Raises:
        InputError: a name without a namespace, or no function.
    """
    if not isinstance(operator, str) or operator.count("::") != 1:
        raise InputError(f"operator: value is {operator!r}; allowed is 'namespace::name'")
    if not callable(flops):
        raise InputError(f"flops: type is {type(flops).__name__}; allowed is a function")
    _FORMULAS[operator] = flops


def formula_of(func: Any) -> Callable[..., float] | None:
    """FLOPs of a call by a registered formula: the user's, or torch's own counter's."""
    own = _FORMULAS.get(func._schema.name)
    if own is not None:
        return own
    counted = flop_formulas().get(func.overloadpacket)
    if counted is None:
        return None
    return lambda args, kwargs, out: counted(*args, **kwargs, out_val=out)


def understood(func: Any, name: str, kind: str) -> bool:
    """Whether an operator that is no product is known to move bytes and compute little."""
    name = name.removesuffix("_")
    if name in _MOVES or f"{name}_" in _MOVES or kind != "elementwise":
        return True
    if torch.Tag.pointwise in func.tags or any(part in name for part in _STREAMS):
        return True
    counted = any(part in name for part, _ in _FLOPS_PER_ELEMENT)
    return counted and name.endswith("_backward")


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor of nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in tensors_in(item)]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors_in(item)]
    return []


def storage_of(tensor: Tensor) -> int:
    """Equal for tensors that view the same memory; 0 for tensors that have none."""
    if tensor.layout is not torch.strided:
        return 0
    return tensor.untyped_storage()._cdata


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the distinct elements: an expanded axis is read once."""
    if tensor.layout is not torch.strided:
        return tensor.numel() * tensor.element_size()
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size if stride else min(size, 1) for size, stride in sizes) * tensor.element_size()


def statistics_bytes(name: str, args: tuple, read: list[Tensor]) -> int:
    """What a norm reads a second time: its statistics are of more than a core holds.

    So it is for batch norm in training and for group norm; rows of a layer norm stay on chip.
    """
    batch = "batch_norm" in name and (
        "backward" in name or any(a is True for a in args[5:6])
    )  # fmt: skip
    if not batch and "group_norm" not in name:
        return 0
    largest = max((t.numel() for t in read), default=0)
    return sum(stored_bytes(t) for t in read if t.numel() == largest)


def rows_of(name: str, args: tuple, read: list[Tensor]) -> tuple[int, int]:
    """(rows, elements of one) of a norm or softmax that is done row by row; zeros of others.

    So are layer and RMS norms, and softmaxes along the last axis. Batch and group norms are passes
    for statistics and over the tensor.
    """
    if not read or not read[0].ndim:
        return 0, 0
    shape = read[0].shape
    if "softmax" in name:
        axes = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
        width = shape[-1] if axes and axes[0] % len(shape) == len(shape) - 1 else 0
    elif "layer_norm" in name or "rms_norm" in name:
        sizes = next((a for a in args if isinstance(a, (list, tuple))), shape[-1:])
        width = prod(sizes)
    else:
        width = 0
    return (read[0].numel() // width, width) if width else (0, 0)


def serial_of(name: str, written: list[Tensor]) -> tuple[int, int]:
    """(elements in turn, threads) of an operator that is not run by a thread an element.

    CUDA's bilinear and bicubic resampling of contiguous images has a thread for each pixel, which
    goes through all samples and channels; the bilinear one's gradient has a thread an element.
    Source: torch 2.13, UpSampleBilinear2d.cu, upsample_bilinear2d_out_frame and
    upsample_bilinear2d_backward_out_frame.
    """
    if "bilinear2d_backward" in name:
        return 0, 0
    if not name.startswith(("upsample_bilinear2d", "upsample_bicubic2d")):
        return 0, 0
    y = written[0]
    if y.ndim != 4 or (y.is_contiguous(memory_format=torch.channels_last) and y.shape[1] > 1):
        return 0, 0
    return y.shape[0] * y.shape[1], y.shape[2] * y.shape[3]


def traffic_bytes(name: str, read: list[Tensor], written: list[Tensor]) -> int:
    """Compulsory traffic of one unfused operator: each operand in, each result out, once.

    A gather (embedding, index_select) reads as many elements as it writes, and its indices.
    """
    out = sum(stored_bytes(t) for t in written)
    if name in _GATHERS:
        return 2 * out + sum(stored_bytes(t) for t in read[1:])
    seen = {id(t): t for t in read}
    return out + sum(stored_bytes(t) for t in seen.values())


def element_flops(name: str, kind: str, read: list[Tensor], written: list[Tensor]) -> int:
    """Arithmetic of what is no product: a constant per element of the largest operand."""
    if name.startswith("_embedding_bag") and "backward" not in name:
        # Sums of weighted rows: (table, indices, …).
        return 2 * read[1].numel() * read[0].shape[1]
    if name in _MOVES or kind == "embedding":
        return 0
    if name.startswith("_fft"):
        # Source: Cooley and Tukey 1965: 5 N log₂ N for a transform of N complex points.
        points = max((t.numel() for t in (*read, *written)), default=0)
        return int(5 * points * log2(max(points, 2)))
    each = next((flops for part, flops in _FLOPS_PER_ELEMENT if part in name), 1)
    # A loss gathers one score for each label; its matrix of scores is not computed with.
    largest = written if "nll_loss" in name else [*read, *written]
    return each * max((t.numel() for t in largest), default=0)


def matrix_sizes(left: Tensor, right: Tensor) -> tuple[int, int, int, int]:
    """(batch, rows, inner, columns) of mm, bmm or mv."""
    batch = left.shape[0] if left.ndim == 3 else 1
    columns = right.shape[-1] if right.ndim >= 2 else 1
    return batch, left.shape[-2], left.shape[-1], columns


def convolution_sizes(
    x: Tensor, weight: Tensor, y: Tensor, transposed: bool, groups: int
) -> tuple[int, int, int]:
    """(m, n, k) of one group. A transposed convolution is counted over its input's positions,
    and its weight lies (in, out / groups, …), so that n is on the input side."""
    side = x if transposed else y
    m = side.shape[0] * prod(side.shape[2:])
    return m, weight.shape[0] // groups, prod(weight.shape[1:])


def attention_flops(query: Tensor, key: Tensor, value: Tensor, *, backward: bool) -> int:
    """2 products forward (scores, values); 5 backward, where the scores are computed again.

    Shapes (batch, heads, length, head size).
    Source: Dao et al. 2022, FlashAttention, algorithms 1 and 4; the same as torch counts.
    """
    pairs = 2 * prod(query.shape[:-1]) * key.shape[-2]
    d_score, d_value = query.shape[-1], value.shape[-1]
    return pairs * ((3 * d_score + 2 * d_value) if backward else (d_score + d_value))
