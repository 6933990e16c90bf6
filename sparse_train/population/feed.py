"""Training batches for many networks at once, each made only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from hwsim.checks import check_number
from sparse_train.tasks import Batch, Prepared

_BLOCK = 32  # steps made together


class Feed:
    """The batches of `task` for any (seed, step), stacked; those made last are kept.

    Runs that are compared share their seeds, so the same batch is asked for again and again, and
    to make one takes longer than to train a small network on it.

    Args:
        task: prepared; only `batch` is called, so only training data is read.
        batch_size: of each network.
        most_bytes: of batches that are kept.
    """

    def __init__(self, task: Prepared, batch_size: int, most_bytes: int = 256 << 20) -> None:
        check_number("batch_size", batch_size, least=1)
        self.task, self.batch_size, self.most_bytes = task, batch_size, most_bytes
        self._blocks: OrderedDict[tuple[int, int], list[Batch]] = OrderedDict()
        self._block_bytes = 1

    def __call__(self, seeds: Sequence[int], steps: Sequence[int]) -> Batch:
        """The batch of step `steps[i]` (counted from 1) under `seeds[i]`, each tensor (n, …)."""
        found = [self._one(seed, step) for seed, step in zip(seeds, steps, strict=True)]
        return {name: torch.stack([batch[name] for batch in found]) for name in found[0]}

    def _one(self, seed: int, step: int) -> Batch:
        number, place = divmod(step - 1, _BLOCK)
        block = self._blocks.get((seed, number))
        if block is None:
            first = number * _BLOCK + 1
            block = [self.task.batch(first + i, self.batch_size, seed) for i in range(_BLOCK)]
            self._block_bytes = sum(t.nbytes for batch in block for t in batch.values())
            while (len(self._blocks) + 1) * self._block_bytes > self.most_bytes and self._blocks:
                self._blocks.popitem(last=False)
            self._blocks[seed, number] = block
        else:
            self._blocks.move_to_end((seed, number))
        return block[place]
