"""Plain attention in a compiled graph, which a compiler runs by the fused kernel.

Source: torch 2.13, torch/_inductor/fx_passes/fuse_attention.py: scores that are scaled by one
number, masked by addition and normalised, then multiplied by the values. Scores that something is
added to without being scaled, that are scaled by a tensor, or whose mask is looked up (relative
positions), are no pattern of its. Graphs of a forward pass alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwsim.workload import Op
from sparse_train.observing.passed import Passed

_SCALES, _LOOKED_UP = ("mul", "div"), ("index", "embedding", "gather", "index_select")
_AFTER = ("_to_copy", "clone")


def attention_found(ops: Sequence[Op], passed: Sequence[Passed]) -> tuple[list[Op], list[Passed]]:
    """The ops with each plain attention as one; graphs with a backward pass as they are."""
    if any(op.phase != "forward" for op in ops):
        return list(ops), list(passed)
    writer = {v: i for i, p in enumerate(passed) for v in p.written}
    readers: dict[int, list[int]] = {}
    for i, p in enumerate(passed):
        for v in p.read:
            readers.setdefault(v, []).append(i)
    kept_ops, kept_passed = list(ops), list(passed)
    dropped: set[int] = set()
    for i, op in enumerate(ops):
        if op.kind != "softmax":
            continue
        before = _back(i, ops, passed, writer, readers)
        after = _on(i, ops, passed, readers)
        if before is None or after is None:
            continue
        scores, values = ops[before[-1]], ops[after[-1]]
        if (scores.m, scores.n, scores.count) != (values.m, values.k, values.count):
            continue
        chain = [*before, i, *after]
        own = {v for j in chain for v in passed[j].written}
        read = {v: size for j in chain for v, size in passed[j].read.items() if v not in own}
        written = passed[after[-1]].written
        kept_ops[after[-1]] = replace(
            scores, dense_flops=scores.dense_flops + values.dense_flops, fused=True,
            activation_bytes=sum(read.values()) + sum(written.values()),
        )  # fmt: skip
        kept_passed[after[-1]] = Passed(read, written, fusable=False)
        dropped.update(chain[:-1])
    left = [i for i in range(len(ops)) if i not in dropped]
    return [kept_ops[i] for i in left], [kept_passed[i] for i in left]


def _back(
    i: int, ops: Sequence[Op], passed: Sequence[Passed], writer: dict[int, int],
    readers: dict[int, list[int]],
) -> list[int] | None:  # fmt: skip
    """From a softmax up to the product whose scores it normalises; None if there is none."""
    found: list[int] = []
    masked = scaled = False
    while True:
        largest = max(passed[i].read, key=lambda v: passed[i].read[v], default=None)
        if largest is None or largest not in writer or readers[largest] != [i]:
            return None
        i = writer[largest]
        found.append(i)
        if ops[i].kind == "attention" and not ops[i].fused:
            return found if scaled or not masked else None
        operator, beside = passed[i].operator, len(passed[i].read) - 1
        if ops[i].kind != "elementwise" or (operator in _SCALES and beside):
            return None
        if operator == "add" and not masked and not scaled:
            masked = True
            if any(passed[writer[v]].operator in _LOOKED_UP for v in passed[i].read if v in writer):
                return None
        elif operator in _SCALES:
            scaled = True
        elif operator != "_to_copy":
            return None


def _on(
    i: int, ops: Sequence[Op], passed: Sequence[Passed], readers: dict[int, list[int]]
) -> list[int] | None:  # fmt: skip
    """From a softmax down to the product with the values; None if there is none."""
    found: list[int] = []
    while True:
        next_ones = {j for v in passed[i].written for j in readers.get(v, [])}
        if len(next_ones) != 1:
            return None
        i = next_ones.pop()
        found.append(i)
        if ops[i].kind == "attention" and not ops[i].fused:
            return found
        if ops[i].kind != "elementwise" or passed[i].operator not in _AFTER:
            return None
