"""How much memory is alive while a step runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class Living:
    """Bytes of the storages that are alive, and the most there ever were."""

    def __init__(self) -> None:
        self.now_bytes = 0
        self.peak_bytes = 0
        self._seen = WeakIdKeyDictionary()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages behind these tensors until they are freed."""
        for tensor in tensors:
            if tensor.layout is not torch.strided:
                continue
            storage = tensor.untyped_storage()
            if storage in self._seen:
                continue
            size = storage.nbytes()
            self._seen[storage] = size
            self.now_bytes += size
            weakref.finalize(storage, self._freed, size)
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)

    def _freed(self, size: int) -> None:
        self.now_bytes -= size
