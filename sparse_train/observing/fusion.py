"""What a compiler fuses: neighbours in the graph that pass their tensors on in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hwsim.workload import Op
from sparse_train.observing.passed import Passed

_FUSED = ("elementwise", "norm", "softmax", "loss", "embedding")


@dataclass
class _Group:
    ready: int  # the last op outside groups whose result it needs
    position: int
    members: list[int] = field(default_factory=list)


def fused(ops: Sequence[Op], passed: Sequence[Passed]) -> list[Op]:
    """The ops of a step with neighbours fused: each tensor is read once and kept if read again.

    An op joins the group that made one of its operands if the others are there by then. Products,
    attention, optimizer steps and operators that were not understood stay alone. What only the
    group itself reads is never written.

    Source: Ansel et al. 2024 (PyTorch 2), section 4.4, for what Inductor fuses.
    """
    after: dict[int, int] = {}  # value → the last op outside groups that it depends on
    owner: dict[int, _Group] = {}
    groups: list[_Group] = []
    alone: set[int] = set()
    for i, (op, tensors) in enumerate(zip(ops, passed, strict=True)):
        ready = max((after.get(v, -1) for v in tensors.read), default=-1)
        if op.kind not in _FUSED or not tensors.fusable:
            alone.add(i)
            for v in tensors.read:
                held = owner.get(v)
                if held is not None:
                    held.position = min(held.position, i)
            for v in tensors.written:
                after[v] = i
                owner.pop(v, None)
            continue
        makers = [owner[v] for v in tensors.read if v in owner]
        best = max(makers, key=lambda g: g.ready, default=None)
        # A group may wait for later operands as long as no product has read its results.
        if best is None or (ready > best.ready and ready >= best.position):
            best = _Group(ready, len(ops))
            groups.append(best)
        best.members.append(i)
        best.ready = max(best.ready, ready)
        for v in tensors.written:
            after[v] = best.ready
            owner[v] = best
    readers: dict[int, set[int]] = {}
    at = {i: n for n, group in enumerate(groups) for i in group.members}
    for i, tensors in enumerate(passed):
        for v in tensors.read:
            readers.setdefault(v, set()).add(at.get(i, -1))
    found = [(i, ops[i]) for i in alone]
    found += [
        (group.members[0], _merged(ops, passed, group.members, n, readers))
        for n, group in enumerate(groups)
    ]
    return [op for _, op in sorted(found, key=lambda pair: pair[0])]


# How much slower than contiguous a compiler reckons convolutions to be in channels_last.
# Source: torch 2.13, torch/_inductor/graph.py, decide_layout_opt.
_GROUPED, _NARROWING, _SMALL, _OTHER = 1.358, 0.725, 0.783, 0.823
_NODES_A_CONVOLUTION = 200


def laid_out(ops: Sequence[Op]) -> list[Op]:
    """The ops with their convolutions in the layout that Inductor would choose for the graph."""
    forward = [op for op in ops if op.kind == "conv" and op.phase == "forward"]
    if not forward or not _worth_it(ops, forward):
        return list(ops)
    return [replace(op, layout="channels_last") if op.kind == "conv" else op for op in ops]


def _worth_it(ops: Sequence[Op], forward: Sequence[Op]) -> bool:
    if sum(op.phase == "forward" for op in ops) >= _NODES_A_CONVOLUTION * len(forward):
        return False
    if any(op.phase != "forward" for op in ops):
        narrowing = any(_factor(op) == _NARROWING for op in forward)
        small = all(_factor(op) == _SMALL for op in forward)
        return not narrowing and not small and all(_factor(op) != _GROUPED for op in forward)
    weighed = sum(op.dense_flops * _factor(op) for op in forward)
    return weighed <= sum(op.dense_flops for op in forward)


def _factor(op: Op) -> float:
    outputs, inputs = op.n * op.count, op.k // op.window
    if op.count > 1 and inputs > 1:
        return _GROUPED
    if 2 * outputs <= inputs and op.window > 1:
        return _NARROWING
    return _SMALL if outputs <= 64 and inputs <= 64 else _OTHER


def _merged(
    ops: Sequence[Op], passed: Sequence[Passed], members: list[int], n: int,
    readers: dict[int, set[int]],
) -> Op:  # fmt: skip
    read: dict[int, int] = {}
    written: dict[int, int] = {}
    for i in members:
        for v, size in passed[i].read.items():
            if v not in written:
                read[v] = max(read.get(v, 0), size)
        written.update(passed[i].written)
    kept = sum(size for v, size in written.items() if readers.get(v, {-1}) != {n})
    mine = [ops[i] for i in members]
    kinds = {op.kind for op in mine}
    kind = next((k for k in ("softmax", "norm", "loss", "embedding") if k in kinds), "elementwise")
    largest = max(mine, key=lambda op: op.activation_bytes)
    return replace(
        largest, kind=kind, dense_flops=sum(op.dense_flops for op in mine),
        activation_bytes=sum(read.values()) + kept + sum(passed[i].again for i in members),
        fused=len(members) > 1,
    )  # fmt: skip
