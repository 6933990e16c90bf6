"""The training step that an ONNX file stands for.

A file has a forward pass. Each product brings its two gradients, of the same sizes; each other node
that depends on a parameter brings one pass backwards, which reads the gradient of its result beside
its operands and writes one for each; each parameter brings its update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from analysis.estimating.onnx_files.attention import AttentionNodes, attentions
from analysis.estimating.onnx_files.graph import Graph, attribute, read
from hwsim import InputError, Mask, Op, Workload
from hwsim.workload import DTYPE_BYTES, PRODUCTS

# A layer is masked where at least this share of its weights is zero.
MASKED_FROM = 0.01
_NORMS = {
    "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "LpNormalization", "SimplifiedLayerNormalization",
}  # fmt: skip
_OF_ROWS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_OF_BATCHES = ("BatchNormalization", "GroupNormalization")
# Counted off their formulas, each exponential, root or error function as one, as for torch's
# operators; one for what is not listed.
_FLOPS = {"Gelu": 8, "Softmax": 5, "LogSoftmax": 5, "Swish": 5, "Mish": 5, "Sigmoid": 4, "Clip": 2,
          "HardSwish": 4, "HardSigmoid": 3}  # fmt: skip
_MOVES = {"Concat", "Slice", "Split", "Pad", "Tile", "Expand", "Gather", "GatherElements", "Cast",
          "Where", "ScatterND", "ScatterElements", "DepthToSpace", "SpaceToDepth"}  # fmt: skip
_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Relu", "Erf", "Tanh", "Exp", "Log", "Pow", "Sqrt", "Neg", "Abs",
    "Reciprocal", "LeakyRelu", "PRelu", "Elu", "Selu", "Softplus", "Min", "Max", "Sum", "Mean",
    "Equal", "Greater", "Less", "And", "Or", "Not", "Sign", "Floor", "Ceil", "Round", "Sin", "Cos",
    "CumSum", "ArgMax", "ArgMin", "TopK", "MaxPool", "AveragePool", "GlobalAveragePool",
    "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "Resize",
    "Trilu", "GreaterOrEqual", "LessOrEqual", "IsNaN", "Mod", *_FLOPS,
}  # fmt: skip


class _Builder:
    """Collects ops; backward ones are written down in reverse at the end."""

    def __init__(self, graph: Graph, dtype: str | None) -> None:
        self.graph, self.dtype = graph, dtype
        self.forward: list[Op] = []
        self.backward: list[list[Op]] = []
        self.unknown: dict[str, int] = {}
        # Parameter → layer, shape, and whether the file has it turned: (n_in, n_out).
        self.layers: dict[str, tuple[str, tuple[int, ...], bool]] = {}
        self._trained = _trained(graph)

    def type_of(self, value: str, *, product: bool = False) -> str:
        own = self.graph.types.get(value, "float32")
        if self.dtype == "tfloat32":
            return "tfloat32" if product and own == "float32" else own
        return self.dtype if self.dtype is not None and value in self.graph.types else own

    def bytes_of(self, values: Any, node: Any) -> int:
        size = 0
        for value in dict.fromkeys(v for v in values if v):
            known = value in self.graph.types
            itemsize = DTYPE_BYTES[self.type_of(value)] if known else 8
            if value not in self.graph.constants or value in self.graph.shapes:
                size += self.graph.elements(value, node) * itemsize
        return size

    def product(
        self, node: Any, weight: str, x: str, y: str, sizes: tuple[int, int, int, int],
        shape: tuple[int, int] | None, kind: str = "gemm", window: int = 1,
    ) -> None:  # fmt: skip
        """A product with a parameter, and its gradients."""
        m, n, k, count = sizes
        name = self._layer(node, weight)
        dtype = self.type_of(y, product=True)
        itemsize = DTYPE_BYTES[dtype]
        moved = self.bytes_of((x, y), node) if kind == "conv" else m * (n + k) * itemsize
        op = Op(
            kind, "forward", name, m, n, k, count, dtype, dense_flops=2 * m * n * k * count,
            activation_bytes=moved,
            weight_bytes=n * k * count * itemsize, weight_shape=shape, window=window,
        )  # fmt: skip
        self.forward.append(op)
        back = [replace(op, phase="grad_input")] if x in self._trained else []
        self.backward.append([*back, replace(op, phase="grad_weight")])

    def _layer(self, node: Any, weight: str) -> str:
        """As torch calls it: of the parameter, or, where an exporter named that anew, the node."""
        if weight in self.layers:
            return self.layers[weight][0]
        name = weight.removesuffix(".weight")
        if "::" in weight or weight.startswith("_"):
            name = node.name.strip("/").rpartition("/")[0].replace("/", ".") or node.name or weight
        known = {layer for layer, *_ in self.layers.values()}
        while name in known:
            name += "_"
        self.layers[weight] = name, (), False
        return name

    def passing(self, node: Any, kind: str, flops: int, *, sized: bool = False) -> None:
        """A node that is no product."""
        graph, here = self.graph, self._here(node)
        read_values = [v for v in node.input if v and v not in graph.constants]
        moved = self.bytes_of((*read_values, *node.output[:1]), node)
        # Statistics over a batch are of more than a core holds: its values are read again.
        twice = self.bytes_of(node.input[:1], node) if node.op_type in _OF_BATCHES else 0
        rows = width = 0
        if sized:
            shape = graph.shape(node.input[0], node)
            rows, width = prod(shape[:-1]), shape[-1]
        dtype = self.type_of(node.output[0])
        op = Op(kind, "forward", here, rows, width, dtype=dtype, dense_flops=flops,
                activation_bytes=moved + twice)  # fmt: skip
        self.forward.append(op)
        if node.output[0] not in self._trained:
            return
        if kind == "embedding":  # the table's gradient is written whole
            again = self.bytes_of((*node.input[:2], node.output[0]), node)
            self.backward.append([replace(op, phase="grad_weight", activation_bytes=again)])
            return
        again = moved + self.bytes_of(node.output[:1], node) + 2 * twice
        self.backward.append([replace(op, phase="grad_input", activation_bytes=again)])

    def bias(self, node: Any) -> None:
        """Added within a product; its gradient is the sum over all rows."""
        size = self.graph.elements(node.output[0], node)
        dtype = self.type_of(node.output[0])
        self.backward.append([Op("elementwise", "grad_weight", self._here(node), dtype=dtype,
                                 dense_flops=size,
                                 activation_bytes=size * DTYPE_BYTES[dtype])])  # fmt: skip

    def attention(self, found: AttentionNodes) -> None:
        graph = self.graph
        q, k = (graph.shape(value, found.scores) for value in found.scores.input[:2])
        v = graph.shape(found.last.input[1], found.last)
        count, rows, inner, columns = prod(q[:-2]), q[-2], q[-1], k[-1]
        dtype = self.type_of(found.last.output[0], product=True)
        pairs, d_value = 2 * count * rows * columns, v[-1]
        values = (*found.scores.input[:2], found.last.input[1], found.last.output[0])
        op = Op("attention", "forward", self._here(found.last), rows, columns, inner, count, dtype,
                dense_flops=pairs * (inner + d_value),
                activation_bytes=self.bytes_of(values, found.last), fused=True)  # fmt: skip
        self.forward.append(op)
        self.backward.append([replace(op, phase="grad_input",
                                      dense_flops=pairs * (3 * inner + 2 * d_value),
                                      activation_bytes=2 * op.activation_bytes)])  # fmt: skip

    def of_activations(self, node: Any) -> None:
        """A product without a parameter: its gradients are two such products."""
        graph = self.graph
        left, right = (graph.shape(value, node) for value in node.input[:2])
        out = graph.shape(node.output[0], node)
        count = prod(out[:-2]) if len(out) > 2 else 1
        rows, inner = left[-2] if len(left) > 1 else 1, left[-1]
        columns = right[-1] if len(right) > 1 else 1
        dtype = self.type_of(node.output[0], product=True)
        op = Op("attention" if count > 1 else "gemm", "forward", self._here(node), rows, columns,
                inner, count, dtype, dense_flops=2 * count * rows * inner * columns,
                activation_bytes=self.bytes_of((*node.input[:2], node.output[0]), node),
                )  # fmt: skip
        self.forward.append(op)
        if node.output[0] in self._trained:
            self.backward.append([replace(op, phase="grad_input")] * 2)

    def _here(self, node: Any) -> str:
        return (
            node.name.strip("/").rpartition("/")[0].replace("/", ".") or node.name or node.op_type
        )


def step_of(
    path: Path, batch_size: int, sequence_length: int, dtype: str | None, optimizer: str
) -> tuple[Workload, dict[str, tuple[int, ...]], dict[str, Mask], int]:
    """A dense training step, layer → shape of its weight, layer → mask, and all parameters' number.

    Masks are the zeros of weights, where there are more than `MASKED_FROM`.

    Raises:
        InputError: a file that cannot be read, sizes that do not follow from it, or no product
            with a parameter.
    """
    if dtype is not None and dtype.startswith("amp"):
        raise InputError(
            f"--dtype: value is {dtype!r}; allowed for ONNX files are float32, tf32, bfloat16, "
            "float16"
        )
    graph = read(path, batch_size, sequence_length)
    made = _Builder(graph, dtype)
    whole = attentions(graph)
    hidden = {id(node) for one in whole for node in (*one.nodes, one.scores, one.last)}
    last = {id(one.last): one for one in whole}
    for node in graph.running():
        if id(node) in last:
            made.attention(last[id(node)])
        elif id(node) not in hidden and not all(v in graph.weights for v in node.output):
            _node(made, graph, node)
    if not made.layers:
        raise InputError(f"{path}: no product with a parameter; allowed is a model with layers")
    outputs = [value for value in graph.outputs if value in graph.shapes]
    size = sum(prod(graph.shapes[value]) for value in outputs)
    loss = Op("loss", "forward", "loss", dense_flops=size, activation_bytes=4 * size)
    backward = [op for ops in reversed(made.backward) for op in ops]
    shapes, masks = _layers(made, graph)
    update = _updates(made, graph, optimizer)
    ops = (*made.forward, loss, *backward, *update)
    step = Workload(ops, path.stem, unknown=made.unknown)
    number = sum(array.size for name, array in graph.arrays.items() if name in _parameters(graph))
    return step, shapes, masks, number


def _node(made: _Builder, graph: Graph, node: Any) -> None:
    kind = node.op_type
    if kind in ("MatMul", "Gemm"):
        _matmul(made, graph, node)
    elif kind in ("Conv", "ConvTranspose"):
        _conv(made, graph, node, turned=kind == "ConvTranspose")
    elif kind in ("Add", "Sub") and _is_bias(graph, node):
        made.bias(node)
    elif kind == "Gather" and node.input[0] in graph.weights:
        out = made.bytes_of(node.output, node) * 2 + made.bytes_of(node.input[1:2], node)
        made.passing(node, "embedding", 0)
        made.forward[-1] = replace(made.forward[-1], activation_bytes=out)
    elif node.output[0] not in graph.types and kind in _MOVES | _ELEMENTWISE:
        return  # integers: positions and sizes
    elif kind in _NORMS:
        made.passing(node, "norm", 8 * graph.elements(node.input[0], node),
                     sized=kind in _OF_ROWS)  # fmt: skip
    elif kind in ("Softmax", "LogSoftmax"):
        made.passing(node, "softmax", 5 * graph.elements(node.input[0], node), sized=True)
    elif kind in _MOVES:
        made.passing(node, "elementwise", 0)
    else:
        flops = _FLOPS.get(kind, 1) * graph.elements(node.output[0], node)
        made.passing(node, "elementwise", flops)
        if kind not in _ELEMENTWISE:
            moved = made.forward[-1].activation_bytes
            made.unknown[kind] = made.unknown.get(kind, 0) + moved


def _matmul(made: _Builder, graph: Graph, node: Any) -> None:
    left, right = node.input[:2]
    weight = graph.weights.get(right) or graph.weights.get(left)
    known = right if right in graph.weights else left
    if weight is None or len(graph.shapes[weight.name]) != 2:
        return made.of_activations(node)
    x, y = left if known == right else right, node.output[0]
    # As stored (rows, columns), the operand's inner side first or last.
    turned = weight.turned != bool(attribute(node, "transB" if known == right else "transA", 0))
    inner_first = (known == right) != turned
    rows, columns = graph.shapes[weight.name]
    n, k = (columns, rows) if inner_first else (rows, columns)
    m = graph.elements(y, node) // n
    made.product(node, weight.name, x, y, (m, n, k, 1), (n, k))
    made.layers[weight.name] = made.layers[weight.name][0], (n, k), inner_first
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] in graph.weights:
        made.bias(node)
    return None


def _conv(made: _Builder, graph: Graph, node: Any, *, turned: bool) -> None:
    x, given, y = node.input[0], node.input[1], node.output[0]
    if given not in graph.weights:
        raise InputError(f"{graph.path}: {node.op_type} {node.name!r} has no weight of its own; "
                         "allowed is one that does")  # fmt: skip
    weight = graph.weights[given].name
    shape, groups = graph.shapes[weight], int(attribute(node, "group", 1))
    side = graph.shape(x if turned else y, node)
    m, n, k = side[0] * prod(side[2:]), shape[0] // groups, prod(shape[1:])
    made.product(node, weight, x, y, (m, n, k, groups), (shape[0], k), "conv", prod(shape[2:]))
    made.layers[weight] = made.layers[weight][0], shape, False
    if len(node.input) > 2 and node.input[2]:
        size = made.bytes_of((y,), node)
        made.forward.append(Op("elementwise", "forward", made.forward[-1].name,
                               dtype=made.type_of(y), dense_flops=graph.elements(y, node),
                               activation_bytes=2 * size))  # fmt: skip
        made.bias(node)


def _is_bias(graph: Graph, node: Any) -> bool:
    """A vector added to a product's result, which the product's kernel adds itself."""
    for value, other in (node.input, node.input[::-1]):
        vector = value in graph.weights and len(graph.shapes[value]) == 1
        maker = graph.makers.get(other)
        if vector and maker is not None and maker.op_type in ("MatMul", "Gemm"):
            return True
    return False


def _trained(graph: Graph) -> set[str]:
    """Values that depend on a parameter: gradients pass through them."""
    found: set[str] = set()
    for node in graph.nodes:
        if any(value in graph.weights or value in found for value in node.input):
            found.update(node.output)
    return found


def _parameters(graph: Graph) -> set[str]:
    """Names of those that are trained: running statistics are not."""
    still = {value for node in graph.nodes if node.op_type == "BatchNormalization"
             for value in node.input[3:5]}  # fmt: skip
    return set(graph.arrays) - still


def _layers(made: _Builder, graph: Graph) -> tuple[dict[str, tuple[int, ...]], dict[str, Mask]]:
    shapes: dict[str, tuple[int, ...]] = {}
    masks: dict[str, Mask] = {}
    for weight, (name, shape, turned) in made.layers.items():
        shapes[name] = shape
        array = graph.arrays[weight]
        active = np.asarray(array != 0)
        if active.mean() <= 1.0 - MASKED_FROM:
            matrix = active.T if turned else active.reshape(shape[0], -1)
            masks[name] = Mask(np.ascontiguousarray(matrix), copy=False)
    return shapes, masks


def _updates(made: _Builder, graph: Graph, optimizer: str) -> list[Op]:
    from sparse_train.observing.optimizers import OPTIMIZERS, update_ops

    rule = OPTIMIZERS[optimizer]
    found: list[Op] = []
    shaped = {op.name: op.weight_shape for op in made.forward if op.kind in PRODUCTS}
    for name in graph.arrays:
        if name not in _parameters(graph):
            continue
        number, dtype = graph.arrays[name].size, made.type_of(name)
        layer = made.layers[name][0] if name in made.layers else name
        shape = shaped.get(layer) if name in made.layers else None
        found += update_ops(rule, layer, number, shape, dtype)
    return found


def described(masks: Mapping[str, Mask], layers: int) -> str:
    """What is to be known of a step that was read from a file."""
    own = f"Masks are the file's own zeros, in {len(masks)} of {layers} layers. " if masks else ""
    return (
        own + "Read from ONNX: the forward pass is the file's; gradients and update follow from "
        "its products and passes, and attention is priced fused."
    )
