"""Which operands are weights: parameters are known by the memory they lie in, so through any view
or transposition; what an elementwise operator makes of one is that weight too."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from sparse_train.masking.kinds import Layout
from sparse_train.naming import layer_name
from sparse_train.observing.operators import storage_of

_PLAIN = Layout()


@dataclass(frozen=True)
class WeightUse:
    """A parameter as an operand: rows [start, stop) of its matrix (n_out, n_in).

    Experts' matrices stand one on top of the other. `shape` is None where the operand is no such
    block, so that no mask can act on it.
    """

    layer: str
    start: int
    stop: int
    shape: tuple[int, int] | None

    @property
    def rows(self) -> int:
        """Of the weight, that the operation uses."""
        return self.stop - self.start


@dataclass(frozen=True)
class _Held:
    """A tensor that holds a weight: `rows` × `columns` of each group, as they are stored."""

    name: str
    offset: int
    numel: int
    rows: int
    columns: int
    layout: Layout
    product: bool
    tensor: Tensor  # keeps the memory from being given to another tensor

    @property
    def matrix(self) -> tuple[int, int]:
        """(n_out, n_in) of all groups together."""
        turned = self.layout.transposed
        n_out, n_in = (self.columns, self.rows) if turned else (self.rows, self.columns)
        return self.layout.groups * n_out, n_in


class Weights:
    """The parameters of a model by the memory they lie in, and their casts, copies and images."""

    def __init__(self) -> None:
        self._held: dict[int, list[_Held]] = {}

    def add(self, name: str, tensor: Tensor, layout: Layout | None = None) -> None:
        """A parameter; its layout where it is known to be the weight of a product."""
        shape = tuple(tensor.shape)
        own = shape[1:] if layout is not None and layout.groups > 1 else shape
        rows, columns = (own[0], prod(own[1:])) if own else (1, 1)
        self._add(
            _Held(
                name, int(tensor.storage_offset()), tensor.numel(), rows, columns,
                layout or _PLAIN, layout is not None, tensor,
            )
        )  # fmt: skip

    def _add(self, held: _Held) -> None:
        self._held.setdefault(storage_of(held.tensor), []).append(held)

    def add_copy(self, source: Tensor, copy: Tensor) -> None:
        """A cast, copy or elementwise image of a whole parameter counts as the parameter."""
        held = self._find(source)
        if held is None or not held.numel == source.numel() == copy.numel() or self._find(copy):
            return
        if source.is_contiguous() and copy.is_contiguous():
            turned = False
        elif source.ndim == copy.ndim == 2 and source.stride(0) == 1 and copy.is_contiguous():
            turned = held.layout.groups == 1
            if not turned:
                return
        elif source.stride() == copy.stride():
            turned = False
        else:
            return
        rows, columns, layout = held.rows, held.columns, held.layout
        if turned:
            rows, columns, layout = columns, rows, Layout(not layout.transposed)
        offset = int(copy.storage_offset())
        self._add(_Held(held.name, offset, held.numel, rows, columns, layout, held.product, copy))

    def add_images(self, read: list[Tensor], written: list[Tensor]) -> None:
        """What an operator made of a whole weight of a product, element by element: a mask times
        it, where, a fake quantisation, a standardisation, a division by its norm."""
        for tensor in read:
            held = self._find(tensor)
            if held is None or not held.product or tensor.numel() != held.numel:
                continue
            for image in written:
                if image.shape == tensor.shape and image.is_floating_point():
                    self.add_copy(tensor, image)

    def find(self, tensor: Tensor) -> WeightUse | None:
        """The parameter behind an operand of rank ≥ 2 (its last two axes are the matrix)."""
        held = self._find(tensor)
        if held is None or tensor.ndim < 2:
            return None
        layer, columns = layer_name(held.name), held.columns
        shared = tensor.ndim == 2 or tensor.shape[0] == 1 or tensor.stride(0) == 0
        sizes, strides = tuple(tensor.shape[-2:]), tuple(tensor.stride()[-2:])
        group, within = divmod(
            int(tensor.storage_offset()) - held.offset, max(held.rows * columns, 1)
        )
        row, column = divmod(within, max(columns, 1))
        for rows_axis in (0, 1):
            high, wide = sizes[rows_axis], sizes[1 - rows_axis]
            in_order = strides[1 - rows_axis] == 1 or wide == 1 or columns == 1
            dense = strides[rows_axis] == columns or high == 1
            if not (shared and in_order and dense):
                continue
            if held.layout.transposed and high == held.rows and row == 0:
                start = group * columns + column
                return _block(layer, held.matrix, start, start + wide)
            if not held.layout.transposed and wide == columns:
                start = group * held.rows + row
                return _block(layer, held.matrix, start, start + high)
        return WeightUse(layer, 0, 0, None)

    def experts(self, tensor: Tensor) -> WeightUse | None:
        """The stacked experts behind an operand (experts, …, …): all of a parameter's, in order."""
        held = self._find(tensor)
        if held is None or tensor.ndim != 3 or tensor.shape[0] != held.layout.groups:
            return None
        if tensor.numel() != held.numel or tensor.stride(0) != held.rows * held.columns:
            return None
        return _block(layer_name(held.name), held.matrix, 0, held.matrix[0])

    def whole(self, tensor: Tensor) -> WeightUse | None:
        """The parameter behind a convolution's weight, as it is stored."""
        held = self._find(tensor)
        if held is None:
            return None
        layer = layer_name(held.name)
        stored = (tensor.shape[0], prod(tensor.shape[1:]))
        if tensor.numel() != held.numel or stored != (held.rows, held.columns):
            return WeightUse(layer, 0, 0, None)
        return _block(layer, stored, 0, stored[0])

    def _find(self, tensor: Tensor) -> _Held | None:
        offset = None
        for held in self._held.get(storage_of(tensor), ()):
            offset = tensor.storage_offset() if offset is None else offset
            if held.offset <= offset < held.offset + max(held.numel, 1):
                return held
        return None


def _block(layer: str, matrix: tuple[int, int], start: int, stop: int) -> WeightUse:
    if (start, stop) == (0, matrix[0]):
        return WeightUse(layer, start, stop, matrix)
    return WeightUse(f"{layer}[{start}:{stop}]", start, stop, (stop - start, matrix[1]))
