"""What an ONNX file holds, with the shape of every value.

Source: the ONNX specification (onnx.ai), IR and operators of the default domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from analysis.estimating.onnx_files.sizes import with_sizes
from hwsim.errors import InputError

# Without arithmetic or traffic of their own: views, and what is known before the model runs.
FREE = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant",
    "ConstantOfShape", "Range", "Transpose", "Dropout",
}  # fmt: skip
_VIEWS = {"Transpose", "Identity", "Cast"}
_KEPT_ELEMENTS = 1 << 10  # constants up to this size keep their values while shapes are found
_TYPES = {1: "float32", 10: "float16", 16: "bfloat16", 11: "float64"}


@dataclass(frozen=True)
class GraphWeight:
    """A parameter, and whether a node sees it turned."""

    name: str
    turned: bool = False


@dataclass
class Graph:
    """A file's nodes in order.

    Attributes:
        shapes: value → sizes, where they are known.
        types: value → name of its floating type; other values are integers.
        arrays: parameter → its values, those that are trained and those that are not.
        weights: value → the parameter that it is, as it is or turned.
        constants: values that are known before the model runs.
        outputs: of the whole graph.
    """

    path: Path
    nodes: list[Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    arrays: dict[str, np.ndarray]
    outputs: list[str]
    weights: dict[str, GraphWeight] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    readers: dict[str, list[Any]] = field(default_factory=dict)
    makers: dict[str, Any] = field(default_factory=dict)

    def shape(self, value: str, node: Any) -> tuple[int, ...]:
        """Its sizes.

        Raises:
            InputError: they do not follow from the file.
        """
        if value not in self.shapes:
            raise InputError(
                f"{self.path}: sizes of {value!r}, which {node.op_type} {node.name!r} reads or "
                "writes, do not follow from the file; allowed is a model exported with fixed sizes"
            )
        return self.shapes[value]

    def elements(self, value: str, node: Any) -> int:
        """Of a value that a node reads or gives."""
        return prod(self.shape(value, node))

    def running(self) -> Iterator[Any]:
        """Nodes that something is computed by while the model runs."""
        for node in self.nodes:
            if node.op_type not in FREE and not all(out in self.constants for out in node.output):
                yield node


def read(path: Path, batch_size: int, sequence_length: int) -> Graph:
    """The graph of a file; open sizes are those given: the first axis' and the others'.

    Raises:
        InputError: the package onnx is missing, or it cannot read the file.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise InputError(
            f"model {str(path)!r}: needs the package onnx; install it with "
            "`pip install 'nettime[onnx]'`"
        ) from None
    try:
        model = onnx.load(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file ({type(error).__name__})") from None
    graph = model.graph
    if not graph.node:
        raise InputError(f"{path}: not an ONNX file, or one without nodes")
    arrays = {init.name: numpy_helper.to_array(init) for init in graph.initializer}
    for given in graph.input:
        for axis, size in enumerate(given.type.tensor_type.shape.dim):
            if size.dim_value <= 0:
                size.dim_value = sequence_length if axis else batch_size
    # Values of weights say nothing about shapes, and no message may be larger than 2 GB.
    for init in graph.initializer:
        if prod(init.dims) > _KEPT_ELEMENTS:
            for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                init.ClearField(name)
    try:
        inferred = with_sizes(model).graph
    except Exception as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    found = Graph(path, list(graph.node), {}, {}, {}, [o.name for o in graph.output])
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        sizes = [size.dim_value for size in kind.shape.dim]
        if kind.HasField("shape") and all(size > 0 for size in sizes):
            found.shapes[value.name] = tuple(sizes)
        if kind.elem_type in _TYPES:
            found.types[value.name] = _TYPES[kind.elem_type]
    for init in graph.initializer:
        found.shapes[init.name] = tuple(init.dims)
        if init.data_type in _TYPES:
            found.types[init.name] = _TYPES[init.data_type]
    _sort(found, arrays)
    return found


def _sort(graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
    """Parameters apart from constants, and who makes and reads what."""
    for name, array in arrays.items():
        if name in graph.types and array.size > 1:
            graph.arrays[name] = array
            graph.weights[name] = GraphWeight(name)
        else:
            graph.constants.add(name)
    for node in graph.nodes:
        if node.op_type == "Constant":
            graph.constants.update(node.output)
        for value in node.input:
            graph.readers.setdefault(value, []).append(node)
        for value in node.output:
            graph.makers[value] = node
    for node in graph.nodes:
        given = [value for value in node.input if value]
        if node.op_type in ("Shape", "Size") or (
            given and all(value in graph.constants for value in given)
        ):
            graph.constants.update(node.output)
        elif node.op_type in _VIEWS and given[0] in graph.weights:
            known = graph.weights[given[0]]
            turned = known.turned != (node.op_type == "Transpose")
            graph.weights[node.output[0]] = GraphWeight(known.name, turned)
            graph.shapes.setdefault(node.output[0], graph.shapes[known.name])


def attribute(node: Any, name: str, otherwise: Any = None) -> Any:
    """Of a node."""
    from onnx import helper

    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return otherwise
