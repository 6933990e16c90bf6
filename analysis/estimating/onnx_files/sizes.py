"""Sizes of every value of a graph: as onnx infers them, with what is known of sizes worked out."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

_MOST_ELEMENTS, _MOST_ROUNDS = 1 << 10, 1000


def with_sizes(model: Any) -> Any:
    """A copy of the model whose values have their sizes, as far as they follow.

    Exporters write sizes as arithmetic on the sizes of values before; each round works out what
    follows from the sizes that the round before it found.
    """
    import onnx
    from onnx import shape_inference

    left = onnx.ModelProto()
    left.CopyFrom(model)
    for _ in range(_MOST_ROUNDS):
        left = shape_inference.infer_shapes(left, data_prop=True)
        if not _work_out(left):
            break
    return left


def _work_out(model: Any) -> bool:
    """Puts constants in the place of nodes whose results are known; whether there were any."""
    from onnx import numpy_helper

    graph = model.graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer
             if prod(i.dims) <= _MOST_ELEMENTS}  # fmt: skip
    sizes = {}
    for value in (*graph.value_info, *graph.input):
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in shape.dim):
            sizes[value.name] = [d.dim_value for d in shape.dim]
    kept, new = [], []
    for node in graph.node:
        found = _result(node, known, sizes)
        if found is None:
            kept.append(node)
        else:
            known[node.output[0]] = found
            new.append(numpy_helper.from_array(found, node.output[0]))
    if not new:
        return False
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(new)
    return True


def _result(node: Any, known: dict[str, np.ndarray], sizes: dict[str, list[int]]) -> Any:
    """What a node gives, if that is known and small."""
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Shape" and not node.attribute and node.input[0] in sizes:
        return np.array(sizes[node.input[0]], np.int64)
    given = [value for value in node.input if value]
    if len(node.output) != 1 or not all(value in known for value in given):
        return None
    if node.op_type.startswith("Random") or any(a.HasField("g") for a in node.attribute):
        return None
    try:
        (found,) = ReferenceEvaluator(node).run(None, {v: known[v] for v in given})
    except (
        Exception
    ):  # an operator that the package does not run: its sizes may follow all the same
        return None
    found = np.asarray(found)
    return found if found.size <= _MOST_ELEMENTS else None
