"""What classification tasks share: epochs, loss, accuracy."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import InputError
from sparse_train.tasks._base import Batch, Prepared, check_split, stream

# First number of the key of the random stream of epochs.
ORDER = 1


class Classified(Prepared):
    """Examples with a label each; models give `loss` and `logits` (batch, classes).

    Attributes:
        evaluation_batch: examples that are evaluated at once.
    """

    metric: ClassVar[str] = "accuracy"
    lower_is_better: ClassVar[bool] = False
    evaluation_batch: ClassVar[int]

    def __init__(self) -> None:
        self._evaluation: dict[str, list[Batch]] = {}
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    @abstractmethod
    def examples(self, split: str) -> Batch:
        """All examples of a split in order, labels (n,) int64 among them."""

    def chosen(self, step: int, batch_size: int, seed: int, n: int, of: str) -> np.ndarray:
        """Which of n training examples a step's batch has; `of` says what they are.

        Each epoch goes through them once, in an order of its own; what is left of it at the end
        and does not fill a batch is left out.
        """
        steps = n // batch_size
        if not steps:
            raise InputError(f"batch_size: value is {batch_size}; allowed is at most {n}, {of}")
        epoch, place = divmod(step - 1, steps)
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = ((seed, epoch), stream(ORDER, seed, epoch).permutation(n))
        return self._order[1][place * batch_size : (place + 1) * batch_size]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Mean cross-entropy in nats, and the share that is classified right."""
        was_training = model.training
        model.eval()
        loss = right = examples = 0.0
        try:
            for batch in self.evaluation_batches(split):
                outcome = model(**batch)
                n = len(batch["labels"])
                loss += float(outcome.loss) * n
                right += int((outcome.logits.argmax(-1) == batch["labels"]).sum())
                examples += n
        finally:
            model.train(was_training)
        return {"loss": loss / examples, "accuracy": right / examples}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """Labels by their frequency in training (each counted once more)."""
        training = self.examples("train")["labels"].numpy()
        labels = self.examples(split)["labels"].numpy()
        counts = np.bincount(training, minlength=int(labels.max()) + 1) + 1.0
        return {
            "most frequent label": {
                "loss": float(-np.log(counts[labels] / counts.sum()).mean()),
                "accuracy": float((labels == counts.argmax()).mean()),
            }
        }

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        check_split(split)
        known = self._evaluation.get(split)
        if known is None:
            pieces = {
                name: torch.split(tensor, self.evaluation_batch)
                for name, tensor in self.examples(split).items()
            }
            known = self._evaluation[split] = [
                dict(zip(pieces, parts, strict=True))
                for parts in zip(*pieces.values(), strict=True)
            ]
        return known

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(**{**batch, "labels": None}).logits
        return {
            "loss": F.cross_entropy(logits, batch["labels"]),
            "accuracy": (logits.argmax(-1) == batch["labels"]).double().mean(),
        }
