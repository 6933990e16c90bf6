"""Group-shared fan-in: the neurons of a group have the same inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, of_each
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern, index_dtype


@dataclass(frozen=True)
class Group(Pattern):
    """Rows fall into groups of `size` with equal masks, all groups of the same fan-in.

    Any rows can form a group, not only neighbours. Where `size` does not divide n_out, one group
    is smaller. Packed as values (groups, size, k), the inputs of each group and its rows: a gather
    and a batched dense product. The short group is padded with zeros; its missing rows are n_out.

    Source: this project.
    """

    name: ClassVar[str] = "group"
    size: int = 32

    def __post_init__(self) -> None:
        at_least(self.name, "size", self.size, 1)

    def holds(self, mask: Mask) -> bool:
        counts = mask.row_nnz
        if not (counts == counts[0]).all():
            return False
        _, members = np.unique(np.packbits(mask.array, axis=1), axis=0, return_counts=True)
        short = members % self.size
        return int(np.count_nonzero(short)) <= 1 and int(short.sum()) == mask.shape[0] % self.size

    def groups(self, mask: Mask) -> np.ndarray:
        """(groups, size) row numbers, in the order of each group's first row; n_out pads."""
        n_out = mask.shape[0]
        bits = np.packbits(mask.array, axis=1)
        _, first, kind = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first[kind.reshape(-1)], kind="stable")
        # Rows of one kind stand together; the kind with the short group is put last.
        members = np.bincount(kind.reshape(-1))
        short = (members % self.size != 0)[kind.reshape(-1)[order]]
        order = order[np.argsort(short, kind="stable")]
        padded = np.full(-(-n_out // self.size) * self.size, n_out, dtype=np.int64)
        padded[:n_out] = order
        return padded.reshape(-1, self.size)

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        share = round(density * shape[1]) / shape[1]
        rows = replace(of_each(1, self.size, 1, share), fixed=True)
        return rows, of_each(self.size, 1, self.size, share)

    def implies(self, other: Pattern) -> bool:
        return other.name in ("unstructured", "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        n_out, n_in = packed.shape
        dense = np.zeros((n_out + 1, n_in), dtype=packed.values.dtype)
        rows, columns = packed.indices["rows"], packed.indices["columns"]
        dense[rows[:, :, None], columns[:, None, :]] = packed.values
        return dense[:n_out]

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        rows = self.groups(mask)
        columns = np.nonzero(mask.array[rows[:, 0]])[1].reshape(len(rows), int(mask.row_nnz[0]))
        padded = np.vstack([values, np.zeros((1, mask.shape[1]), dtype=values.dtype)])
        indices = {
            "rows": rows.astype(index_dtype(mask.shape[0])),
            "columns": columns.astype(index_dtype(mask.shape[1] - 1)),
        }
        return Packed(padded[rows[:, :, None], columns[:, None, :]], indices, mask.shape)


PATTERN = Group
