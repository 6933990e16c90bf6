"""Plain attention in a compiled graph, which a compiler runs by the fused kernel.

Source: torch 2.13, torch/_inductor/fx_passes/fuse_attention.py: scores that are scaled by one
number, masked by addition and normalised, then multiplied by the values. Scores that something is
added to without being scaled, that are scaled by a tensor, or whose mask is looked up (relative
positions), are no pattern of its. With a backward pass scores must be scaled, and may be masked or
dropped out, not both; forward and backward then become a kernel each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hwsim.workload import Op
from sparse_train.observing.passed import Passed

_SCALES, _LOOKED_UP = ("mul", "div"), ("index", "embedding", "gather", "index_select")
_AFTER, _DROPOUT = ("_to_copy", "clone"), "native_dropout"
_BACKWARD = (*_SCALES, *_AFTER, "native_dropout_backward")


class _Kernel(NamedTuple):
    """The ops that one kernel runs, in any order; it stands where `at` stood."""

    ops: list[int]
    at: int
    op: Op


def attention_found(ops: Sequence[Op], passed: Sequence[Passed]) -> tuple[list[Op], list[Passed]]:
    """The ops with each plain attention as one, or as one forward and one backward."""
    graph = _Graph(ops, passed)
    kept_ops, kept_passed = list(ops), list(passed)
    dropped: set[int] = set()
    for i, op in enumerate(ops):
        if op.kind != "softmax" or op.phase != "forward":
            continue
        kernels = graph.kernels(i)
        inner = {v for k in kernels for j in k.ops for v in passed[j].written}
        for kernel in kernels:
            read = {v: s for j in kernel.ops for v, s in passed[j].read.items() if v not in inner}
            written = passed[kernel.at].written
            if kernel.op.phase != "forward":
                # What the forward pass read and made is read again, and all gradients are written.
                read |= kept_passed[kernels[0].at].read | passed[kernels[0].at].written
                written = graph.handed_on(kernel.ops)
            kept_ops[kernel.at] = replace(
                kernel.op, fused=True,
                activation_bytes=sum(read.values()) + sum(written.values()),
            )  # fmt: skip
            kept_passed[kernel.at] = Passed(read, written, fusable=False)
            dropped.update(j for j in kernel.ops if j != kernel.at)
    left = [i for i in range(len(ops)) if i not in dropped]
    return [kept_ops[i] for i in left], [kept_passed[i] for i in left]


class _Graph:
    """Ops, and who makes and reads their values."""

    def __init__(self, ops: Sequence[Op], passed: Sequence[Passed]) -> None:
        self._ops, self._passed = ops, passed
        self._writer = {v: i for i, p in enumerate(passed) for v in p.written}
        self._readers: dict[int, list[int]] = {}
        for i, p in enumerate(passed):
            for v in p.read:
                self._readers.setdefault(v, []).append(i)
        self._trained = any(op.phase != "forward" for op in ops)

    def handed_on(self, inside: Sequence[int]) -> dict[int, int]:
        """What some ops write and others read."""
        own = set(inside)
        return {
            v: size for j in inside for v, size in self._passed[j].written.items()
            if any(r not in own for r in self._readers.get(v, []))
        }  # fmt: skip

    def kernels(self, softmax: int) -> list[_Kernel]:
        """What a softmax is in the midst of as fused kernels; none if it is no attention."""
        before, after = self._back(softmax), self._on(softmax)
        if before is None or after is None:
            return []
        scores, values = self._ops[before[-1]], self._ops[after[-1]]
        if (scores.m, scores.n, scores.count) != (values.m, values.k, values.count):
            return []
        forward = [*before, softmax, *after]
        flops = scores.dense_flops + values.dense_flops
        kernel = _Kernel(forward, after[-1], replace(scores, dense_flops=flops))
        if not self._trained:
            return [kernel]
        back = self._backward(softmax, forward)
        if back is None:
            return []
        # Scores are computed again, then two products each for scores and for values.
        flops = 3 * scores.dense_flops + 2 * values.dense_flops
        op = replace(scores, phase="grad_input", dense_flops=flops)
        return [kernel, _Kernel(back, max(back), op)]

    def _later(self, value: int, forward: bool) -> list[int]:
        """Who reads a value, in the forward pass or in the backward pass."""
        readers = self._readers.get(value, [])
        return [i for i in readers if (self._ops[i].phase == "forward") == forward]

    def _is_product(self, i: int) -> bool:
        return self._ops[i].kind == "attention" and not self._ops[i].fused

    def _back(self, i: int) -> list[int] | None:
        """From a softmax up to the product whose scores it normalises; None if there is none."""
        found: list[int] = []
        masked = scaled = False
        while True:
            read = self._passed[i].read
            largest = max(read, key=lambda v: read[v], default=None)
            if largest is None or largest not in self._writer:
                return None
            # A backward pass that reads scores has a gradient for more than them.
            if self._readers[largest] != [i]:
                return None
            i = self._writer[largest]
            found.append(i)
            if self._is_product(i):
                bare = self._trained and not scaled
                return None if bare or (masked and not scaled) else found
            operator, beside = self._passed[i].operator, len(self._passed[i].read) - 1
            if self._ops[i].kind != "elementwise" or (operator in _SCALES and beside):
                return None
            if operator == "add" and not masked and not scaled:
                masked = True
                if any(self._passed[self._writer[v]].operator in _LOOKED_UP
                       for v in self._passed[i].read if v in self._writer):  # fmt: skip
                    return None
            elif operator in _SCALES:
                scaled = True
            elif operator != "_to_copy":
                return None

    def _on(self, i: int) -> list[int] | None:
        """From a softmax down to the product with the values; None if there is none."""
        found: list[int] = []
        masked = "add" in (self._passed[j].operator for j in self._back(i) or [])
        while True:
            next_ones = {j for v in self._passed[i].written for j in self._later(v, True)}
            if len(next_ones) != 1:
                return None
            i = next_ones.pop()
            found.append(i)
            if self._is_product(i):
                return found
            operator = self._passed[i].operator
            if operator == _DROPOUT and masked:
                return None
            if self._ops[i].kind != "elementwise" or operator not in (*_AFTER, _DROPOUT):
                return None

    def _backward(self, softmax: int, forward: list[int]) -> list[int] | None:
        """The ops of an attention's backward pass: four products, and what lies between them.

        They are those reached from the softmax's own gradient without passing a product, with the
        product that gives the gradient of the values.
        """
        inner = {v for j in forward[:-1] for v in self._passed[j].written}
        starts = {j for v in inner for j in self._later(v, False) if self._ops[j].kind == "softmax"}
        if len(starts) != 1:
            return None
        found, waiting, products = set(starts), list(starts), set()
        while waiting:
            i = waiting.pop()
            before = {self._writer[v] for v in self._passed[i].read
                      if v in self._writer and v not in inner}  # fmt: skip
            after = {j for v in self._passed[i].written for j in self._readers.get(v, [])}
            for j in before | after:
                if j in found:
                    continue
                if self._ops[j].phase == "forward":
                    if j in forward:
                        continue
                    return None
                found.add(j)
                if self._is_product(j):
                    products.add(j)
                elif self._passed[j].operator in _BACKWARD:
                    waiting.append(j)
                else:
                    return None
        values = {j for v in inner for j in self._later(v, False) if self._is_product(j)}
        products |= values
        outside = {j for v in inner for j in self._later(v, False)} - found - values
        return sorted(found | values) if len(products) == 4 and not outside else None
