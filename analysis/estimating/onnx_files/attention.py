"""Attention in a graph: a product, its softmax, and the product with the values.

Source: Vaswani et al. 2017, section 3.2.1. Exporters write it out; it is priced as one fused op,
as torch runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.estimating.onnx_files.graph import FREE, Graph

_BETWEEN = {"Mul", "Div", "Add", "Where", "Cast"}


@dataclass(frozen=True)
class AttentionNodes:
    """Nodes that one op stands for: `last` is where it is written down."""

    scores: Any
    last: Any
    nodes: tuple[Any, ...]


def attentions(graph: Graph) -> list[AttentionNodes]:
    """Those that are found."""
    return [found for node in graph.nodes
            if node.op_type == "Softmax" and (found := _around(graph, node))]  # fmt: skip


def _around(graph: Graph, softmax: Any) -> AttentionNodes | None:
    nodes, value = [softmax], softmax.input[0]
    while (maker := graph.makers.get(value)) is not None and maker.op_type in (_BETWEEN | FREE):
        nodes.append(maker)
        value = next((v for v in maker.input if _made_by_product(graph, v)), maker.input[0])
        if len(nodes) > 8:
            return None
    scores = graph.makers.get(value)
    after, value = None, softmax.output[0]
    while len(readers := graph.readers.get(value, [])) == 1:
        after, value = readers[0], readers[0].output[0]
        if after.op_type == "MatMul":
            break
        if after.op_type not in (_BETWEEN | FREE):
            return None
        nodes.append(after)
    if scores is None or scores.op_type != "MatMul" or after is None or after.op_type != "MatMul":
        return None
    if any(value in graph.weights for value in (*scores.input, *after.input)):
        return None
    # A scale may be shared out among both operands.
    for value in scores.input:
        maker = graph.makers.get(value)
        if maker is not None and maker.op_type in ("Mul", "Div") and _by_constant(graph, maker):
            nodes.append(maker)
    return AttentionNodes(scores, after, tuple(nodes))


def _made_by_product(graph: Graph, value: str) -> bool:
    maker = graph.makers.get(value)
    return maker is not None and maker.op_type in (_BETWEEN | FREE | {"MatMul"})


def _by_constant(graph: Graph, node: Any) -> bool:
    return any(value in graph.constants for value in node.input)
