"""A step as its parts: the blocks that repeat, what comes before them and what after."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hwsim.workload import DTYPE_BYTES, PRODUCTS, Op, Workload

BEFORE, AFTER = "before", "after"
_BLOCK = re.compile(r"^(?:.*?\.)?\d+(?=\.|$|\[|:)")


@dataclass
class Part:
    """One block: its ops by when they run, and its weights.

    Attributes:
        rows, width: of the activations that it hands on, taken from its norms; 0 if it has none.
        heads: independent products of its attention (batch × heads); 0 if it has none.
        scores: whether its attention keeps them for the backward pass; not where it is fused.
        weights, nnz: numbers of weights, all and those under masks.
        stored: device → what the kernels of its masked layers keep, once that was asked.
    """

    name: str
    forward: list[Op] = field(default_factory=list)
    backward: list[Op] = field(default_factory=list)
    update: list[Op] = field(default_factory=list)
    rows: int = 0
    width: int = 0
    heads: int = 0
    length: int = 0
    weights: int = 0
    nnz: int = 0
    itemsize: int = 4
    scores: bool = False
    stored: dict = field(default_factory=dict, repr=False)

    @property
    def boundary_bytes(self) -> float:
        """Of the activations that it hands on."""
        return float(self.rows * self.width * self.itemsize)

    def masked(self) -> list[Op]:
        """Of each layer under a mask, an op that holds it."""
        found: dict[str, Op] = {}
        for op in self.update or self.forward:
            if op.mask is not None and (op.kind == "optimizer" or not self.update):
                found.setdefault(op.name, op)
        return list(found.values())

    @cached_property
    def masked_weights(self) -> int:
        """Weights of its layers under masks, active or not."""
        return sum(op.weights for op in self.masked())

    def products(self, name: str) -> list[Op]:
        """Those of a masked layer, forward and backward."""
        return [op for op in (*self.forward, *self.backward)
                if op.name == name and op.kind in PRODUCTS]  # fmt: skip

    def dense_gradients(self) -> set[str]:
        """Masked layers whose gradients are made for inactive weights too: of a growth step."""
        masked = {op.name for op in self.masked()}
        return {op.name for op in self.backward
                if op.phase == "grad_weight" and op.mask is None and op.name in masked}  # fmt: skip

    @property
    def updated_masks(self) -> int:
        """Masks that this step changes."""
        return sum(op.kind == "mask_update" for op in self.update)

    @cached_property
    def content(self) -> tuple:
        """All but names: parts of equal content have equal prices. Masks are told by identity."""
        ops = (self.forward, self.backward, self.update)
        return (
            *(tuple((*op.signature[:2], *op.signature[3:], id(op.mask)) for op in some)
              for some in ops),
            self.rows, self.width, self.heads, self.length, self.weights, self.nnz, self.itemsize,
        )  # fmt: skip


def between_products(ops: Sequence[Op]) -> list[range]:
    """Where ops lie before, between and behind products with weights."""
    places = [-1, *(i for i, op in enumerate(ops) if op.kind in ("gemm", "conv")), len(ops)]
    return [range(first + 1, end) for first, end in itertools.pairwise(places)]


def around_attention(ops: Sequence[Op]) -> list[range]:
    """Where ops lie that work on heads: between the product before an attention and that after."""
    return [some for some in between_products(ops) if any(ops[i].kind == "attention" for i in some)]


def scores_again(ops: Sequence[Op]) -> list[Op]:
    """What makes attention from queries, keys and values: products, and all between them."""
    found = []
    for heads in around_attention(ops):
        places = [i for i in heads if ops[i].kind == "attention"]
        found += ops[places[0] : places[-1] + 1]
    return found


def block_of(name: str) -> str:
    """The block that a layer belongs to; "" for none.

    >>> block_of("encoder.3.ffn.up"), block_of("head")
    ('encoder.3', '')
    """
    found = _BLOCK.match(name)
    return found[0] if found else ""


def parts_of(step: Workload) -> list[Part]:
    """The parts of a step in the order of its forward pass: before, blocks, after.

    What has no block's name belongs to the part that comes before the first block or after the
    last, by when it runs.
    """
    parts: dict[str, Part] = {BEFORE: Part(BEFORE)}
    now = BEFORE
    for op in step.ops:
        if op.phase != "forward":
            continue
        block = block_of(op.name)
        if block:
            now = block
            parts.setdefault(block, Part(block)).forward.append(op)
        elif len(parts) == 1:
            parts[BEFORE].forward.append(op)
        else:
            parts.setdefault(AFTER, Part(AFTER)).forward.append(op)
    after = parts.pop(AFTER, Part(AFTER))
    now = AFTER
    parts[AFTER] = after
    names = list(parts)
    owners = {op.name: part.name for part in parts.values() for op in part.forward
              if op.weight_shape is not None}  # fmt: skip
    for op in step.ops:
        if op.phase == "forward":
            continue
        block = block_of(op.name)
        if block in parts:
            now = block
            where = parts[block]
        elif op.phase == "update":
            where = parts[owners.get(op.name, BEFORE)]
        else:
            # Sums of gradients and the like run beside the block whose gradients they are.
            last = now == names[1] and op.name not in ("gradients",)
            where = parts[BEFORE if last and len(names) > 2 else now]
        (where.update if op.phase == "update" else where.backward).append(op)
    per_weight = _flops_per_weight(step.ops)
    for part in parts.values():
        _describe(part, per_weight)
    return list(parts.values())


def _describe(part: Part, per_weight: float) -> None:
    norms = [op for op in part.forward if op.kind == "norm" and op.m]
    products = [op for op in part.forward if op.kind in PRODUCTS]
    if products:
        part.itemsize = min(DTYPE_BYTES[op.dtype] for op in products)
    if norms:
        part.rows, part.width = norms[0].m, norms[0].n
    elif products:
        part.rows, part.width = products[-1].m, products[-1].n
    attention = [op for op in part.forward if op.kind == "attention"]
    if attention:
        part.heads, part.length = attention[0].count, attention[0].m
        part.scores = not attention[0].fused
    for op in part.update:
        if op.kind != "optimizer":
            continue
        number = op.weights or round(op.dense_flops / per_weight)
        part.weights += number
        part.nnz += op.nnz if op.weights else number
    if not part.update:
        held = {op.name: op for op in products if op.weight_shape is not None}
        part.weights = sum(op.weights for op in held.values())
        part.nnz = sum(op.nnz for op in held.values())


def _flops_per_weight(ops: Sequence[Op]) -> float:
    shaped = [op for op in ops if op.kind == "optimizer" and op.weights]
    return shaped[0].dense_flops / shaped[0].weights if shaped else 13.0
