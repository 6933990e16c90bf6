"""Rows, columns and channels that are all zero leave the model: a smaller dense one, same outputs.

A channel that a layer puts out can leave where everything between it and the layers that read it
treats channels one by one, in one of two ways:

- nobody reads it: its columns are zero in all readers;
- it is a constant: its row is zero, so what reaches the readers is its bias after the activations
  and norms between. Readers take the constant into their own bias. With padding a reader sees zeros
  at the border instead, so there the constant has to be zero.

What a channel passes on the way, node by node, is read off the model's graph (torch.fx). A part of
the model whose code cannot be traced is left as it is, and so is a channel that meets anything that
mixes channels or needs their number: a residual sum, a view, a softmax, a layer norm.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from hwsim.errors import InputError
from sparse_train.export import plain
from sparse_train.sparsify import Sparsifier

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.LogSigmoid, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
_ELEMENTWISE_CALLS = {
    torch.relu, F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
    torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.softplus, F.hardtanh, F.hardswish, F.dropout,
    "relu", "relu_", "sigmoid", "tanh", "contiguous",
}  # fmt: skip


@dataclass(frozen=True)
class Pruned:
    """A smaller model, and what became of each layer.

    Attributes:
        model: with the same outputs as the given one in evaluation, up to rounding.
        removed: layer → output channels that are gone from it.
        kept: layer → why channels of it that could have gone are still there.
        parameters: before and after.
    """

    model: nn.Module
    removed: dict[str, int]
    kept: dict[str, str]
    parameters: tuple[int, int]

    def __str__(self) -> str:
        before, after = self.parameters
        lines = [f"{before} parameters before, {after} after ({after / max(before, 1):.1%})"]
        lines += [f"{name}: {count} channels removed" for name, count in self.removed.items()]
        lines += [f"{name}: not removed: {why}" for name, why in self.kept.items()]
        return "\n".join(lines)


def prune_structurally(model: nn.Module | Sparsifier, example: Any = None) -> Pruned:
    """The same model without neurons and channels that are constant or that nobody reads.

    Args:
        model: a plain one, whose zeros are zeros (`export.plain`, `export.strip`), or a Sparsifier.
            It is not changed; a copy is made smaller.
        example: a batch (a tensor, or a tuple or dictionary of arguments) on which the outputs are
            compared. Worth giving where a `BatchNorm1d` follows a linear layer on more than two
            axes: the graph does not tell along which one it works.

    Raises:
        InputError: no module; a model whose masks were not taken off; other outputs on the example.
    """
    if isinstance(model, Sparsifier):
        model = plain(model)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model: type is {type(model).__name__}; allowed is a torch module or a Sparsifier"
        )
    for name, buffer in model.named_buffers():
        if name.endswith("_mask") and buffer.dtype == torch.bool:
            raise InputError(
                f"model: {name} is a mask; allowed is a model without (sparse_train.export.strip)"
            )
    small = copy.deepcopy(model)
    before = sum(p.numel() for p in small.parameters())
    removed: Counter[str] = Counter()
    kept: dict[str, str] = {}
    graphs = list(_graphs(small, ""))
    shared = _shared(small)
    changed = True
    while changed:  # a row that goes takes columns of the layer before with it
        changed = False
        kept.clear()
        for prefix, root, graph in graphs:
            for chain in _chains(root, graph, prefix, shared):
                count, why = _shrink(chain)
                removed[chain.name] += count
                changed |= count > 0
                if why:
                    kept[chain.name] = why
    if example is not None:
        _compare(model, small, example)
    after = sum(p.numel() for p in small.parameters())
    return Pruned(small, {n: c for n, c in removed.items() if c}, kept, (before, after))


def _compare(model: nn.Module, small: nn.Module, example: Any) -> None:
    found = []
    for one in (model, small):
        evaluated = copy.deepcopy(one).eval()
        with torch.no_grad():
            if isinstance(example, dict):
                given = evaluated(**example)
            else:
                given = evaluated(*(example if isinstance(example, tuple) else (example,)))
        found.append(given)
    try:
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4, equal_nan=True)
    except AssertionError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"example: the smaller model's outputs differ ({reason})") from None


@dataclass(eq=False)
class _Chain:
    """From a layer through what treats channels one by one, to all layers that read them.

    Attributes:
        between: modules and calls on the way, in order of a walk; norms among them are cut too.
        readers: layers, and how many of their columns belong to a channel.
        blocked: why channels may not leave; empty if they may.
    """

    name: str
    layer: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    readers: list[tuple[nn.Module, int, list[fx.Node]]] = field(default_factory=list)
    root: nn.Module | None = None
    blocked: str = ""


def _graphs(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module, fx.Graph]]:
    """The largest parts of a model whose code can be traced."""
    try:
        yield prefix, module, fx.Tracer().trace(module)
        return
    except Exception:  # whatever the model's own code does with a proxy
        pass
    for name, child in module.named_children():
        if any(True for _ in child.children()):
            yield from _graphs(child, f"{prefix}{name}.")


def _shared(model: nn.Module) -> set[int]:
    """Parameters that two modules hold, and modules that hook in something of their own."""
    owners: Counter[int] = Counter()
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] += 1
    return {key for key, count in owners.items() if count > 1}


def _chains(root: nn.Module, graph: fx.Graph, prefix: str, shared: set[int]) -> Iterator[_Chain]:
    modules = dict(root.named_modules())
    calls = Counter(n.target for n in graph.nodes if n.op == "call_module")
    for node in reversed(list(graph.nodes)):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not _is_layer(layer):
            continue
        assert layer is not None
        chain = _Chain(prefix + str(node.target), layer, root=root)
        if calls[node.target] > 1:
            chain.blocked = "it is used more than once"
        elif any(id(p) in shared for p in layer.parameters()) or not _own(layer):
            chain.blocked = "its weight is shared or made of another one"
        else:
            _follow(chain, node, [], modules, calls, shared, 1)
        if not chain.readers and not chain.blocked:
            chain.blocked = "its outputs are read by no layer"
        yield chain


def _is_layer(module: nn.Module | None) -> bool:
    return type(module) is nn.Linear or (type(module) in _CONVS and module.groups == 1)  # type: ignore[union-attr]


def _own(module: nn.Module) -> bool:
    """Whether the weight is a parameter of the module itself, with nothing hooked in."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return isinstance(module._parameters.get("weight"), nn.Parameter) and not any(hooks)


def _follow(
    chain: _Chain, node: fx.Node, path: list[fx.Node], modules: dict[str, nn.Module],
    calls: Counter[Any], shared: set[int], block: int,
) -> None:  # fmt: skip
    """Adds what reads the channels of a node; `block` columns a channel, 0 for "to be found"."""
    for user in node.users:
        if chain.blocked:
            return
        what = modules.get(str(user.target)) if user.op == "call_module" else None
        single = [a for a in user.all_input_nodes if a is node] == user.all_input_nodes
        if not single:
            chain.blocked = f"{user.name} combines it with another value"
        elif what is not None and calls[user.target] > 1 and _has_parameters(what):
            chain.blocked = f"{user.target} is used more than once"
        elif what is not None and _is_layer(what):
            if any(id(p) in shared for p in what.parameters()) or not _own(what):
                chain.blocked = f"{user.target}: its weight is shared or made of another one"
                return
            channels = int(chain.layer.weight.shape[0])  # type: ignore[union-attr]
            columns = int(what.weight.shape[1])  # type: ignore[union-attr]
            if isinstance(chain.layer, nn.Linear) != isinstance(what, nn.Linear) and block == 1:
                chain.blocked = f"{user.target} reads along another axis"
            elif columns % channels or (block == 1 and columns != channels):
                chain.blocked = f"{user.target} reads {columns} columns of {channels} channels"
            else:
                chain.readers.append((what, columns // channels, path))
        elif _is_flatten(user, what) and type(chain.layer) in _CONVS:
            _follow(chain, user, [*path, user], modules, calls, shared, 0)
        elif type(what) in _NORMS and what.num_features == chain.layer.weight.shape[0]:  # type: ignore[union-attr]
            if what not in chain.norms:
                chain.norms.append(what)  # type: ignore[arg-type]
            _follow(chain, user, [*path, user], modules, calls, shared, block)
        elif type(what) in _POOLS and isinstance(chain.layer, nn.Linear):
            chain.blocked = f"{user.target} may mix channels"  # it pools along the last axis
        elif type(what) in (*_POOLS, *_ELEMENTWISE_MODULES) or (
            user.op in ("call_function", "call_method") and user.target in _ELEMENTWISE_CALLS
        ):
            _follow(chain, user, [*path, user], modules, calls, shared, block)
        elif user.op == "output":
            chain.blocked = "its outputs are the model's" if not path else "they reach the output"
        else:
            chain.blocked = f"{user.name} may mix channels"


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_flatten(user: fx.Node, module: nn.Module | None) -> bool:
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if user.target not in (torch.flatten, "flatten"):
        return False
    return (*user.args[1:], *user.kwargs.values()) == (1,)


def _shrink(chain: _Chain) -> tuple[int, str]:
    """Takes channels out of a chain; how many, and why others that are constant stay."""
    weight: Tensor = chain.layer.weight.detach()  # type: ignore[union-attr]
    channels = weight.shape[0]
    constant = ~weight.reshape(channels, -1).ne(0).any(1)
    if chain.blocked:
        count = int(constant.sum())
        return 0, f"{chain.blocked} ({count} of {channels} rows are zero)" if count else ""
    unread = torch.ones(channels, dtype=torch.bool, device=weight.device)
    for reader, _, _ in chain.readers:
        columns = reader.weight.detach().ne(0)  # type: ignore[union-attr]
        columns = columns.reshape(columns.shape[0], channels, -1)
        unread &= ~columns.any(2).any(0)
    values = [_constants(chain, path) for _, _, path in chain.readers]
    foldable, why = constant.clone(), ""
    for (reader, _, path), value in zip(chain.readers, values, strict=True):
        bordered = _is_bordered(chain, reader, path)
        fits = torch.isfinite(value) & (value.eq(0) if bordered else True)
        if bool((foldable & ~fits & ~unread).any()):
            why = "padding turns the constants that they are into something else at the border"
        foldable &= fits
    leaves = unread | foldable
    if bool(leaves.all()):
        leaves[int(weight.abs().reshape(channels, -1).sum(1).argmax())] = False
    count = int(leaves.sum())
    if not count:
        return 0, why
    with torch.no_grad():
        for (reader, block, _), value in zip(chain.readers, values, strict=True):
            _take_over(reader, value * (leaves & ~unread), block)
            _cut(reader, "weight", ~leaves.repeat_interleave(block), 1)
        for module in (chain.layer, *chain.norms):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _cut(module, name, ~leaves, 0)
    _resize(chain, channels - count, [(r, b) for r, b, _ in chain.readers])
    return count, why


def _constants(chain: _Chain, path: list[fx.Node]) -> Tensor:
    """What a channel of zero weights is when it reaches a reader, (channels,), in evaluation."""
    layer, root = chain.layer, chain.root
    assert root is not None
    bias = layer.bias  # type: ignore[union-attr]
    value = torch.zeros_like(layer.weight[:, 0].reshape(layer.weight.shape[0], -1)[:, 0])  # type: ignore[index]
    if bias is not None:
        value = bias.detach().clone()  # type: ignore[union-attr]
    for node in path:
        module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if _is_flatten(node, module) or isinstance(module, _POOLS):
            continue  # of a constant, the constant
        if isinstance(module, _NORMS):
            value = _normed(module, value)
        elif module is not None:
            if not isinstance(module, nn.modules.dropout._DropoutNd):
                value = module(value.detach().clone())
        elif node.target is F.dropout or node.target == "contiguous":
            continue
        else:
            call = getattr(torch, str(node.target).rstrip("_")) if node.op == "call_method" else (
                node.target
            )  # fmt: skip
            value = call(value.clone(), *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return value.detach()


def _normed(norm: nn.Module, value: Tensor) -> Tensor:
    """A batch norm in evaluation; not a number where it has no statistics."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:  # it always looks at the batch: a constant becomes 0
        scaled = torch.zeros_like(value)
    else:
        scaled = (value - mean) / torch.sqrt(variance + norm.eps)  # type: ignore[operator]
    return scaled if norm.weight is None else scaled * norm.weight + norm.bias  # type: ignore[operator]


def _is_bordered(chain: _Chain, reader: nn.Module, path: list[fx.Node]) -> bool:
    """Whether a reader sees padding, or a pool on the way averages it in."""
    assert chain.root is not None
    pools = [chain.root.get_submodule(str(n.target)) for n in path if n.op == "call_module"]
    for pool in pools:
        padding = getattr(pool, "padding", 0) if isinstance(pool, _POOLS) else 0
        average = isinstance(pool, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d))
        if average and any(padding if isinstance(padding, tuple) else (padding,)):
            return True
    if isinstance(reader, nn.Linear):
        return False
    padding = reader.padding
    if reader.padding_mode == "circular":
        return False
    return any(padding) if isinstance(padding, tuple) else padding != "valid"


def _take_over(reader: nn.Module, value: Tensor, block: int) -> None:
    """Adds to a reader's bias what constant channels gave it."""
    if not bool(value.any()):
        return
    weight: Tensor = reader.weight  # type: ignore[assignment]
    given = value.repeat_interleave(block)
    shape = (1, -1) + (1,) * (weight.dim() - 2)
    added = (weight * given.to(weight).reshape(shape)).reshape(weight.shape[0], -1).sum(1)
    if reader.bias is None:
        reader.bias = nn.Parameter(added.detach().clone())
    else:
        reader.bias.data += added  # type: ignore[operator]


def _cut(module: nn.Module, name: str, keep: Tensor, axis: int) -> None:
    held = getattr(module, name, None)
    if held is None:
        return
    smaller = held.detach()[keep] if axis == 0 else held.detach()[:, keep]
    if isinstance(held, nn.Parameter):
        setattr(module, name, nn.Parameter(smaller.clone(), held.requires_grad))
    else:
        setattr(module, name, smaller.clone())


def _resize(chain: _Chain, channels: int, readers: list[tuple[nn.Module, int]]) -> None:
    """Tells the modules their new sizes."""
    for module, name, size in (
        *((n, "num_features", channels) for n in chain.norms),
        (chain.layer, "out_features" if isinstance(chain.layer, nn.Linear) else "out_channels",
         channels),
        *((r, "in_features" if isinstance(r, nn.Linear) else "in_channels", channels * b)
          for r, b in readers),
    ):  # fmt: skip
        setattr(module, name, operator.index(size))
