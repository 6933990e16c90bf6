"""The operations of one training step, with their masks."""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hwsim import units
from hwsim.display import Printed, TextTable
from hwsim.errors import InputError, unknown
from hwsim.mask import Mask

KINDS = (
    "gemm", "conv", "attention", "embedding", "elementwise", "norm", "softmax", "loss",
    "optimizer", "mask_update", "pack",
)  # fmt: skip
PHASES = ("forward", "grad_input", "grad_weight", "update")
_PRODUCT_PHASES = PHASES[:3]
DTYPE_BYTES = {
    "float64": 8, "float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1,
}  # fmt: skip
PRODUCTS = ("gemm", "conv", "attention")
_SIZES = ("m", "n", "k", "count")
_AMOUNTS = ("dense_flops", "activation_bytes", "weight_bytes")
LAYOUTS = ("", "contiguous", "channels_last")


@dataclass(frozen=True)
class Op:
    """One operation of a training step.

    Attributes:
        kind: one of KINDS.
        phase: one of PHASES; `update` is what happens after the backward pass.
        name: the layer (or operation) it belongs to; masks are put on by this name.
        m, n, k: of matrix products: the layer computes y = x·Wᵀ with x (m, k), W (n, k), y (m, n).
            The three numbers are the layer's in every phase: grad_input is (m, n)·(n, k),
            grad_weight is (n, m)·(m, k). Of a norm or softmax: m rows of n elements; of an
            elementwise op that few threads run, elements in turn and threads. Zero otherwise.
        count: independent products of that size (heads × batch, groups of a convolution).
        dtype: of the operands.
        dense_flops: 2 per multiply-add, mask ignored.
        activation_bytes: compulsory traffic that no mask reduces.
        weight_bytes: compulsory traffic in proportion to the density: the weight once in a
            product, weight, gradient and moments in an optimizer's step.
        weight_shape: (n_out, n_in) of the weight that a mask can act on; None if there is none.
        window: of a convolution: positions of its kernel, so that k = channels × window; 1 of
            every other op.
        layout: of a convolution's activations, one of LAYOUTS; "" of what has none.
        fused: whether one kernel does what several operators would: attention with its softmax,
            neighbours that a compiler has joined.
        mask: acts on the operand W in forward and grad_input, on the output in grad_weight.
        weights: elements of the maskable weight, 0 if there is none.
        signature: all of the above but the mask.
    """

    kind: str
    phase: str
    name: str = ""
    m: int = 0
    n: int = 0
    k: int = 0
    count: int = 1
    dtype: str = "float32"
    dense_flops: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0
    weight_shape: tuple[int, int] | None = None
    mask: Mask | None = None
    window: int = 1
    layout: str = ""
    fused: bool = False
    weights: int = field(init=False, repr=False, compare=False, default=0)
    signature: tuple = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _one_of("phase", self.phase, PHASES)
        _one_of("dtype", self.dtype, DTYPE_BYTES)
        _one_of("layout", self.layout, LAYOUTS)
        least = 1 if self.kind in PRODUCTS else 0
        for name in _SIZES:
            self._keep_integer(name, getattr(self, name), least)
        self._keep_integer("window", self.window, 1)
        for name in _AMOUNTS:
            self._keep_integer(name, getattr(self, name), 0)
        if self.weight_shape is not None:
            self._keep_shape(self.weight_shape)
        if self.mask is not None:
            self._check_mask(self.mask)
        # Everything but the mask: what a device keeps its prices by.
        signature = (
            self.kind, self.phase, self.name, self.m, self.n, self.k, self.count, self.dtype,
            self.dense_flops, self.activation_bytes, self.weight_bytes, self.weight_shape,
            self.window, self.layout, self.fused,
        )  # fmt: skip
        object.__setattr__(self, "signature", signature)
        if self.weight_shape:
            object.__setattr__(self, "weights", self.weight_shape[0] * self.weight_shape[1])

    def _keep_integer(self, name: str, value: object, least: int) -> None:
        """Fields are Python's integers, which do not overflow, whatever they were given as."""
        if type(value) is int and value >= least:
            return
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise InputError(
                f"op {self.name or self.kind!r}: {name}: value is {value!r}; "
                f"allowed is an integer of at least {least}"
            )
        object.__setattr__(self, name, int(value))

    def _keep_shape(self, shape: object) -> None:
        if not isinstance(shape, (tuple, list)) or len(shape) != 2:
            raise InputError(
                f"op {self.name or self.kind!r}: weight_shape: value is {shape!r}; "
                "allowed is (n_out, n_in) or None"
            )
        n_out, n_in = (_positive("weight_shape", size) for size in shape)
        object.__setattr__(self, "weight_shape", (n_out, n_in))

    def with_mask(self, mask: Mask | None) -> Op:
        """The same operation under another mask, or none.

        Raises:
            InputError: a mask of another shape than the weight.
        """
        if mask is not None:
            self._check_mask(mask)
        # What is not the mask was checked already; a step has hundreds of ops to copy.
        copy = object.__new__(Op)
        content = self.__dict__.copy()
        content["mask"] = mask
        object.__setattr__(copy, "__dict__", content)
        return copy

    def with_name(self, name: str) -> Op:
        """The same operation of another layer."""
        copy = object.__new__(Op)
        content = self.__dict__.copy()
        content["name"] = name
        signature = self.signature
        content["signature"] = (*signature[:2], name, *signature[3:])
        object.__setattr__(copy, "__dict__", content)
        return copy

    def _check_mask(self, mask: Mask) -> None:
        if not isinstance(mask, Mask):
            raise InputError(f"mask: type is {type(mask).__name__}; allowed is hwsim.Mask")
        if mask.shape != self.weight_shape:
            raise InputError(
                f"mask of {self.name or self.kind!r}: shape is {mask.shape}; "
                f"allowed is (n, k) = {self.weight_shape}"
            )

    @property
    def itemsize(self) -> int:
        """Bytes of an operand's element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def nnz(self) -> int:
        """Active weights: all of them without a mask."""
        return self.weights if self.mask is None else self.mask.nnz

    @property
    def density(self) -> float:
        """Active share of its weight; 1 without a mask."""
        return 1.0 if self.mask is None else self.mask.density

    @property
    def flops(self) -> int:
        """What is left of dense_flops under the mask, exact: each weight has its equal share."""
        if self.mask is None:
            return self.dense_flops
        return self.dense_flops * self.mask.nnz // self.weights

    @property
    def bytes(self) -> int:
        """Compulsory traffic under the mask: values only, without the indices a format adds."""
        if self.mask is None:
            return self.activation_bytes + self.weight_bytes
        return self.activation_bytes + self.weight_bytes * self.mask.nnz // self.weights

    def __hash__(self) -> int:
        # Without the mask: counting a fresh one only to look it up would cost more than it saves.
        return hash(self.signature)


def gemm(
    m: int,
    n: int,
    k: int,
    mask: Mask | None = None,
    phase: str = "forward",
    dtype: str = "float32",
    *,
    name: str = "gemm",
) -> Op:
    """One product of a linear layer y = x·Wᵀ: x (m, k), W (n, k), y (m, n), mask (n, k).

    phase `grad_input` is dx = dy·W, (m, n)·(n, k); `grad_weight` is dW = dyᵀ·x, (n, m)·(m, k),
    with the mask on its output. Each phase moves x- and y-sized activations and the weight once.

    Raises:
        InputError: a size below 1, an unknown phase or dtype, a mask that is not (n, k).

    >>> gemm(8, 4, 2).dense_flops
    128
    """
    m, n, k = _positive("m", m), _positive("n", n), _positive("k", k)
    _one_of("dtype", dtype, DTYPE_BYTES)
    _one_of("phase", phase, _PRODUCT_PHASES)
    size = DTYPE_BYTES[dtype]
    return Op(
        "gemm", phase, name, m, n, k, 1, dtype,
        dense_flops=2 * m * n * k,
        activation_bytes=(m * k + m * n) * size,
        weight_bytes=n * k * size,
        weight_shape=(n, k),
        mask=mask,
    )  # fmt: skip


def _sizes(ops: Iterable[Op]) -> tuple[str, str, str]:
    ops = tuple(ops)
    return (
        units.quantity(sum(op.dense_flops for op in ops), "FLOP"),
        units.quantity(sum(op.flops for op in ops), "FLOP"),
        units.quantity(sum(op.bytes for op in ops), "B"),
    )


@dataclass(frozen=True, repr=False)
class Workload(Printed):
    """The ops of one training step, in order.

    Attributes:
        ops: the operations.
        name: for people.
        unmasked: layers whose mask acts on nothing: the step does not reach them, or uses them in
            another way than as a product's operand.
        unknown: operator that was not understood → bytes that its calls move. Their arithmetic is
            a guess of one operation an element.
        peak_bytes: most that is alive at once while the step runs: parameters, gradients, the
            optimizer's state, buffers and activations by their lifetime; 0 where nobody looked.
        on_values: whether the step was observed on real tensors, since the model looks at values:
            it may be another one on other data.
    """

    ops: tuple[Op, ...]
    name: str = ""
    unmasked: tuple[str, ...] = field(default=(), compare=False)
    unknown: Mapping[str, int] = field(default_factory=dict, compare=False)
    peak_bytes: int = field(default=0, compare=False)
    on_values: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops))
        for op in self.ops:
            if not isinstance(op, Op):
                raise InputError(f"workload: {type(op).__name__} in ops; allowed is hwsim.Op")

    def as_table(self) -> TextTable:
        """FLOPs and bytes of each phase and kind of operation, dense and under the masks."""
        groups: dict[tuple[str, str], list[Op]] = {}
        for op in self.ops:
            groups.setdefault((op.phase, op.kind), []).append(op)
        rows = [
            (f"{phase} {kind}", str(len(ops)), *_sizes(ops))
            for (phase, kind), ops in groups.items()
        ]
        rows.append(("whole step", str(len(self)), *_sizes(self.ops)))
        columns = ("operations", "number", "dense", "under masks", "moved")
        return TextTable(self.name or "training step", columns, rows)

    def __repr__(self) -> str:
        flops = units.quantity(self.flops, "FLOP")
        return f"Workload({self.name!r}, {len(self)} ops, {flops}, {len(self.masks)} masks)"

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def __add__(self, other: Workload) -> Workload:
        unknown = dict(self.unknown)
        for name, moved in other.unknown.items():
            unknown[name] = unknown.get(name, 0) + moved
        peak = max(self.peak_bytes, other.peak_bytes)
        unmasked = tuple(dict.fromkeys(self.unmasked + other.unmasked))
        name = self.name or other.name
        on_values = self.on_values or other.on_values
        return Workload(self.ops + other.ops, name, unmasked, unknown, peak, on_values)

    @property
    def unknown_share(self) -> float:
        """Share of the step's bytes that operators move which were not understood."""
        return sum(self.unknown.values()) / self.bytes if self.bytes else 0.0

    def count_masks(self) -> None:
        """Counts every mask that is not counted yet.

        Before any op is priced: the masks stream through the caches, which pricing then keeps.
        """
        for op in self.ops:
            if op.mask is not None:
                _ = op.mask.nnz

    @property
    def dense_flops(self) -> int:
        """As if nothing were masked."""
        return sum(op.dense_flops for op in self.ops)

    @property
    def flops(self) -> int:
        """Under the masks."""
        return sum(op.flops for op in self.ops)

    @property
    def bytes(self) -> int:
        """Of all operands, each moved once."""
        return sum(op.bytes for op in self.ops)

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Name → (n_out, n_in) of every product whose weight a mask can act on."""
        return {
            op.name: op.weight_shape
            for op in self.ops
            if op.kind in PRODUCTS and op.weight_shape is not None
        }

    @property
    def masks(self) -> dict[str, Mask]:
        """Name → mask, of the layers that have one."""
        return {op.name: op.mask for op in self.ops if op.kind in PRODUCTS and op.mask is not None}

    def phase(self, phase: str) -> Workload:
        """Only the ops of one phase."""
        return replace(
            self, ops=tuple(op for op in self.ops if op.phase == phase), unknown={}, peak_bytes=0
        )

    def with_masks(self, masks: Mapping[str, Mask]) -> Workload:
        """The same step under other masks; layers that are not named become dense.

        The mask goes on every op that holds the layer's weight: its three products, its
        optimizer step, its packing. A masked layer whose values change every step is packed
        every step, so a `pack` op is added where there is none.

        Raises:
            InputError: a name that is no layer here, or a mask of another shape.
        """
        layers = self.layers
        for name in masks:
            if name not in layers:
                raise InputError(unknown("layer", name, sorted(layers)))
        ops = [
            op.with_mask(masks.get(op.name)) if op.weight_shape is not None else op
            for op in self.ops
            if op.kind not in ("pack", "mask_update")
        ]
        products = self._products()
        ops += [_pack(products[name], mask) for name, mask in masks.items()]
        return replace(self, ops=tuple(ops))

    def growth_step(self, *, dense_gradient: bool) -> Workload:
        """The step in which masks are updated.

        Every masked layer adds a `mask_update` op: |w| and the growth scores are read, the mask
        and the values are written. With `dense_gradient` (RigL and its kin) grad_weight of the
        masked layers loses its mask, since every candidate's gradient is needed.
        """
        ops = list((self.with_dense_gradients() if dense_gradient else self).ops)
        products = self._products()
        for name in self.masks:
            product = products[name]
            ops.append(
                Op(
                    "mask_update",
                    "update",
                    name,
                    dtype=product.dtype,
                    # Two selections: each looks at a score once, 1 comparison counted as 1 flop.
                    dense_flops=2 * product.weights,
                    activation_bytes=(2 if dense_gradient else 1) * product.weight_bytes
                    + product.weights // 8,
                    weight_bytes=product.weight_bytes,
                )
            )
        return replace(self, ops=tuple(ops))

    def with_dense_gradients(self) -> Workload:
        """The same step with grad_weight computed for inactive weights too, as SNFS needs it."""
        ops = (
            op.with_mask(None) if op.phase == "grad_weight" and op.kind in PRODUCTS else op
            for op in self.ops
        )
        return replace(self, ops=tuple(ops))

    @property
    def coverage(self) -> float:
        """Share of the dense FLOPs that lies in products under a mask."""
        masked = sum(
            op.dense_flops for op in self.ops if op.kind in PRODUCTS and op.mask is not None
        )
        return masked / self.dense_flops if self.dense_flops else 0.0

    @property
    def digest(self) -> str:
        """Of every op and every mask's content; equal workloads have equal digests."""
        hashed = hashlib.blake2b(digest_size=16)
        for op in self.ops:
            hashed.update(repr(op.signature).encode())
            hashed.update(op.mask.digest.encode() if op.mask is not None else b"-")
        return hashed.hexdigest()

    def _products(self) -> dict[str, Op]:
        """Name → the first product of each layer that a mask can act on."""
        products: dict[str, Op] = {}
        for op in self.ops:
            if op.weight_shape is not None and op.kind in PRODUCTS:
                products.setdefault(op.name, op)
        return products


def _pack(product: Op, mask: Mask) -> Op:
    """Writing the values of a masked weight into a kernel's format, once a step."""
    return Op(
        "pack", "update", product.name, dtype=product.dtype,
        weight_bytes=2 * product.weight_bytes,
        weight_shape=product.weight_shape,
        mask=mask,
    )  # fmt: skip


def _positive(name: str, value: object) -> int:
    if type(value) is int and value > 0:  # nearly always, and a tenth of the cost of what follows
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name}: value is {value!r}; allowed is an integer of at least 1")
    return int(value)


def _one_of(name: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise InputError(unknown(name, value, tuple(allowed)))
