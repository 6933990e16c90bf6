"""Which parameter an operand is: found from its memory, so through any view or transposition."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_train.naming import layer_name, mask_shape
from sparse_train.observing.operators import storage_of


@dataclass(frozen=True)
class WeightUse:
    """A parameter as an operand: whole rows [start, stop) of its (n_out, n_in) matrix.

    `shape` is None where the operand is no such block, so that no mask can act on it.
    """

    layer: str
    start: int
    stop: int
    shape: tuple[int, int] | None

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Held:
    name: str
    offset: int
    numel: int
    matrix: tuple[int, int]
    tensor: Tensor  # keeps the memory from being given to another tensor


class Weights:
    """The parameters of a model by the memory they lie in, and their casts and copies."""

    def __init__(self) -> None:
        self._held: dict[int, list[_Held]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        matrix = mask_shape(tuple(tensor.shape)) if tensor.ndim else (1, 1)
        held = _Held(name, int(tensor.storage_offset()), tensor.numel(), matrix, tensor)
        self._held.setdefault(storage_of(tensor), []).append(held)

    def name_of(self, tensor: Tensor) -> str | None:
        """The parameter that this tensor views, if it is one."""
        held = self._find(tensor)
        return None if held is None else held.name

    def add_copy(self, source: Tensor, copy: Tensor) -> None:
        """A cast or copy of a whole parameter counts as the parameter."""
        held = self._find(source)
        if held is None or source.numel() != held.numel or not copy.is_contiguous():
            return
        if mask_shape(tuple(copy.shape)) == held.matrix and not self._find(copy):
            self.add(held.name, copy)

    def find(self, tensor: Tensor) -> WeightUse | None:
        """The parameter behind an operand of rank ≥ 2 (its last two axes are the matrix)."""
        held = self._find(tensor)
        if held is None or tensor.ndim < 2:
            return None
        shared = tensor.ndim == 2 or tensor.shape[0] == 1 or tensor.stride(0) == 0
        columns = held.matrix[1]
        sizes, strides = tuple(tensor.shape[-2:]), tuple(tensor.stride()[-2:])
        layer = layer_name(held.name)
        start = (tensor.storage_offset() - held.offset) // max(columns, 1)
        for rows_axis in (0, 1):
            columns_axis = 1 - rows_axis
            whole_rows = sizes[columns_axis] == columns
            in_order = strides[columns_axis] == 1 or columns == 1
            dense = strides[rows_axis] == columns or sizes[rows_axis] == 1
            if shared and whole_rows and in_order and dense:
                return _block(layer, held.matrix, start, start + sizes[rows_axis])
        return WeightUse(layer, 0, 0, None)

    def whole(self, tensor: Tensor) -> WeightUse | None:
        """The parameter behind a convolution's weight."""
        held = self._find(tensor)
        if held is None:
            return None
        layer = layer_name(held.name)
        if tensor.numel() != held.numel or mask_shape(tuple(tensor.shape)) != held.matrix:
            return WeightUse(layer, 0, 0, None)
        return _block(layer, held.matrix, 0, held.matrix[0])

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
