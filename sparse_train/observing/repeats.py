"""Equal blocks of a model are observed once, then written down again under each one's name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.workload import Op
from sparse_train.observing.operators import storage_of
from sparse_train.private_torch import (
    FakeTensor,
    current_autograd_node,
    pytree,
    saves_by_hooks,
    unseen,
)

_FEWEST = 3  # equal blocks from which counting pays
_GRAPHS = 2  # blocks that are observed: backward passes can differ in as many ways
# What numbers a block without changing what it does.
_NUMBERS = ("layer_idx", "layer_id", "layer_number", "layer_index", "block_idx", "training")
_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.Size)


class NotRepeated(RuntimeError):
    """A block turned out not to do what its equal did: the step must be observed whole."""


@dataclass(frozen=True)
class _Shape:
    """A tensor without its values."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    grad: bool

    @classmethod
    def of(cls, t: Tensor) -> _Shape:
        return cls(tuple(t.shape), tuple(t.stride()), t.dtype, t.device, t.requires_grad)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


@dataclass
class _Pass:
    """What one pass of a block did: its ops, bytes that moved there, and what it left alive."""

    ops: list[Op]
    unknown: dict[str, int]
    kept_bytes: int
    peak_bytes: int
    made: list[_Shape | None]


@dataclass
class _Template:
    """A block that was observed: forward, and each backward pass once it has been."""

    prefix: str
    spec: Any = None
    fixed: list[Any] = field(default_factory=list)  # leaves of the output; None for a tensor
    forward: _Pass | None = None
    # By the gradients that arrive: those of a step's last block may differ from the others'.
    backward: dict[tuple, _Pass] = field(default_factory=dict)
    graphs: list[Any] = field(default_factory=list)  # on which backward passes are observed


@contextlib.contextmanager
def counted(model: nn.Module, observer: Any) -> Iterator[None]:
    """Meanwhile, blocks that equal one already observed are not computed.

    Equal are neighbours in a list (or children of any module) whose classes, sizes and settings
    are the same, called with tensors of the same shapes and the same everything else. Each is
    still called where the model calls it, and its ops get its own names, so that masks can differ
    from layer to layer. Everything else of the model runs as it is written.
    """
    groups = _groups(model)
    templates: dict[Any, _Template] = {}
    blocks = []
    for number, members in enumerate(groups):
        for prefix, block in members:
            block.__dict__["forward"] = _Counted(
                block.forward, (number,), prefix, observer, templates
            )
            blocks.append(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


class _Counted:
    """A block's forward: recorded the first time it is called so, written down again after."""

    def __init__(
        self, plain: Callable, group: tuple, prefix: str, observer: Any,
        templates: dict[Any, _Template],
    ) -> None:  # fmt: skip
        self.plain, self.group, self.prefix = plain, group, prefix
        self.observer, self.templates = observer, templates

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        training = torch.is_grad_enabled()
        plainly = (
            saves_by_hooks()
            or current_autograd_node() is not None
            or any(t.layout is not torch.strided for t in tensors)
            or training != any(t.requires_grad for t in tensors)
        )
        if plainly:
            return self.plain(*args, **kwargs)
        key = (*self.group, spec, training, *_autocast(), *map(_identity, leaves),
               *_aliases(tensors))  # fmt: skip
        try:
            known = self.templates.get(key)
        except TypeError:  # an argument that cannot be compared
            return self.plain(*args, **kwargs)
        if known is None:
            known = _Template(self.prefix)
            if _recordable(leaves):
                self.templates[key] = known
        run = _Run(self, leaves, spec, known)
        outs = _Block.apply(run, *tensors) if training else run.forward(tensors)
        assert outs is not None
        given = iter(outs)
        whole = [next(given) if f is _TENSOR else f for f in run.template.fixed]
        return pytree.tree_unflatten(whole, run.template.spec)


_TENSOR = object()


class _Run:
    """One call of a block."""

    def __init__(self, owner: _Counted, leaves: list[Any], spec: Any, template: _Template):
        self.owner, self.leaves, self.spec, self.template = owner, leaves, spec, template
        self.grad = torch.is_grad_enabled()
        self.inner: list[Tensor] = []
        self.grads: list[Tensor | None] = []

    def forward(self, tensors: tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
        template, observer = self.template, self.owner.observer
        if template.forward is not None and (len(template.graphs) == _GRAPHS or not self.grad):
            made = _again(observer, template.forward, template.prefix, self.owner.prefix)
            return tuple(t for t in made if t is not None)
        taken = _Watch(observer)
        self.grads = [None] * len(tensors)
        with torch.no_grad():
            own = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
        with torch.set_grad_enabled(self.grad):
            gated = list(_Gate.apply(self.grads, *own)) if self.grad else own  # type: ignore
            given = iter(gated)
            whole = [next(given) if isinstance(x, Tensor) else x for x in self.leaves]
            args, kwargs = pytree.tree_unflatten(whole, self.spec)
            out = self.owner.plain(*args, **kwargs)
        del own, gated, given, whole, args, kwargs
        self.leaves = []
        found, template.spec = pytree.tree_flatten(out)
        template.fixed = [_TENSOR if isinstance(x, Tensor) else x for x in found]
        self.inner = [x for x in found if isinstance(x, Tensor)]
        template.graphs.append(self)
        del out, found
        shapes: list[_Shape | None] = [_Shape.of(t) for t in self.inner]
        if _own(self.inner, tensors):
            template.forward = taken.done(self.inner, shapes)
            template.forward.ops = _named(template.forward.ops, self.owner.prefix, template.prefix)
        else:  # it hands on what it was given: no other block's result
            self._forget()
        return tuple(t.detach() for t in self.inner)

    def backward(self, grads: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """The last block called is the first whose gradients are asked for: they are computed on
        the graph of the one that was observed, and called by this one's names."""
        template, observer, own = self.template, self.owner.observer, self.owner.prefix
        kind = tuple(None if g is None else _Shape.of(g) for g in grads)
        known = template.backward.get(kind)
        if known is not None:
            return _again(observer, known, template.prefix, own)
        if not template.graphs:
            raise NotRepeated(f"{own}: gradients that no block like it had")
        graph: _Run = template.graphs.pop(0)
        taken = _Watch(observer)
        pairs = [(t, g) for t, g in zip(graph.inner, grads, strict=True) if g is not None]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
        graph.inner.clear()
        del pairs
        found, graph.grads = graph.grads, []
        shapes = [None if g is None else _Shape.of(g) for g in found]
        done = taken.done([g for g in found if g is not None], shapes)
        done.ops = _named(done.ops, graph.owner.prefix, template.prefix)
        template.backward[kind] = done
        observer.ops[taken.ops :] = _named(done.ops, template.prefix, own)
        return found

    def _forget(self) -> None:
        known = self.owner.templates
        for key in [k for k, v in known.items() if v is self.template]:
            del known[key]


class _Watch:
    """What happens between now and `done`."""

    def __init__(self, observer: Any) -> None:
        self.observer, living = observer, observer.living
        self.ops, self.unknown = len(observer.ops), dict(observer.unknown)
        self.now, self.peak = living.now_bytes, living.peak_bytes
        living.peak_bytes = living.now_bytes

    def done(self, made: list[Tensor], shapes: list[_Shape | None]) -> _Pass:
        living = self.observer.living
        peak = living.peak_bytes - self.now
        living.peak_bytes = max(self.peak, living.peak_bytes)
        unknown = {
            name: size - self.unknown.get(name, 0)
            for name, size in self.observer.unknown.items()
            if size > self.unknown.get(name, 0)
        }
        kept = living.now_bytes - self.now - _bytes(made)
        return _Pass(self.observer.ops[self.ops :], unknown, kept, peak, shapes)


def _again(observer: Any, done: _Pass, old: str, new: str) -> list[Tensor | None]:
    """Writes down a pass under another block's name; its results, without data."""
    observer.ops += _named(done.ops, old, new)
    for name, size in done.unknown.items():
        observer.unknown[name] = observer.unknown.get(name, 0) + size
    living = observer.living
    living.peak_bytes = max(living.peak_bytes, living.now_bytes + done.peak_bytes)
    living.now_bytes += done.kept_bytes
    with unseen(), observer.fake:
        made = [None if shape is None else shape.empty() for shape in done.made]
    living.add([t for t in made if t is not None])
    return made


def _named(ops: list[Op], old: str, new: str) -> list[Op]:
    return [op.with_name(_renamed(op.name, old, new)) for op in ops]


def _renamed(name: str, old: str, new: str) -> str:
    if name.startswith(old) and not name[len(old) : len(old) + 1].isalnum():
        return new + name[len(old) :]
    return name


def _bytes(tensors: list[Tensor]) -> int:
    held = {storage_of(t): t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())


def _own(outs: list[Tensor], given: Any) -> bool:
    """Whether a block's results are tensors of its own making, each by itself."""
    mine = [storage_of(t) for t in outs]
    whole = all(
        isinstance(t, FakeTensor) and t.untyped_storage().nbytes() == t.numel() * t.element_size()
        for t in outs
    )
    return whole and len(set(mine)) == len(mine) and not set(mine) & {storage_of(t) for t in given}


class _Block(torch.autograd.Function):
    """A block as one node, whose backward pass is its own graph's, or the recorded one."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        outs = run.forward(tensors)
        flat = run.template.forward.made if run.template.forward else [None] * len(outs)
        fixed = [o for o, s in zip(outs, flat, strict=True) if s is not None and not s.grad]
        fixed += [o for o, i in zip(outs, run.inner, strict=False) if not i.requires_grad]
        ctx.mark_non_differentiable(*fixed)
        ctx.set_materialize_grads(False)
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # pyrefly: ignore
        return None, *ctx.run.backward(grads)


class _Gate(torch.autograd.Function):
    """Where a block's own graph ends: what arrives is taken out, and added to nothing."""

    @staticmethod
    def forward(ctx: Any, taken: list[Tensor | None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.taken = taken
        ctx.set_materialize_grads(False)
        views = tuple(t.view_as(t) for t in tensors)
        plain = [v for v, t in zip(views, tensors, strict=True) if not t.requires_grad]
        ctx.mark_non_differentiable(*plain)
        return views

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # pyrefly: ignore
        for i, grad in enumerate(grads):
            ctx.taken[i] = grad
        return (None,) * (1 + len(grads))


def _identity(leaf: Any) -> Any:
    """What must be the same for a call to be the same one again."""
    if isinstance(leaf, FakeTensor):
        return _Shape.of(leaf)
    if isinstance(leaf, _SCALARS):
        return type(leaf), leaf
    return id(leaf)


def _recordable(leaves: list[Any]) -> bool:
    return any(isinstance(leaf, FakeTensor) for leaf in leaves)


def _aliases(tensors: list[Tensor]) -> tuple[int, ...]:
    """Which arguments lie in the same memory."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(storage_of(t), i) for i, t in enumerate(tensors))


def _autocast() -> tuple:
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")


def _groups(model: nn.Module) -> list[list[tuple[str, nn.Module]]]:
    """Equal children of a module, by their names in the model."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                owners[id(tensor)] = owners.get(id(tensor), 0) + 1
    found = []
    for name, parent in model.named_modules():
        alike: dict[Any, list[tuple[str, nn.Module]]] = {}
        for label, child in parent.named_children():
            prefix = f"{name}.{label}" if name else label
            key = _make(child, owners) if any(True for _ in child.children()) else None
            if key is not None:
                alike.setdefault(key, []).append((prefix, child))
        found += [members for members in alike.values() if len(members) >= _FEWEST]
    return found


def _make(block: nn.Module, owners: dict[int, int]) -> Any:
    """Everything that decides what a block does; None if it may not be taken for another."""
    parts: list[Any] = []
    for name, module in block.named_modules():
        hooks = (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
            module._backward_pre_hooks,
        )  # fmt: skip
        if any(hooks) or "forward" in module.__dict__ or "_wrapped_module" in name:
            return None
        parts.append((name, type(module), _settings(module)))
        for label, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                parts.append((label, None))
                continue
            if owners[id(tensor)] > 1 or not tensor.is_floating_point() or (
                not isinstance(tensor, nn.Parameter) and not tensor.is_meta and tensor.ndim > 2
            ):  # fmt: skip
                return None
            parts.append((label, _Shape.of(tensor)))
    return tuple(parts)


def _settings(module: nn.Module) -> tuple:
    own = []
    for name, value in vars(module).items():
        if name.startswith("_") and name not in ("_activation", "_size"):
            continue
        if name not in _NUMBERS:
            own.append((name, _setting(value)))
    return tuple(own)


def _setting(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_setting(x) for x in value)
    if isinstance(value, Tensor):
        return _Shape.of(value)
    return id(value)
