"""Masked language modelling: guess the tokens that were hidden in a window of real text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError
from sparse_train.data.embeddings import TRAINED, fitted, of_tokens, read_vectors, trained_vectors
from sparse_train.data.text import STDLIB, Corpus, load_corpus
from sparse_train.data.vocabulary import MASK, SPECIAL_TOKENS, TokenizedCorpus, tokenize
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream

_HIDDEN_AS_MASK = 0.8
_HIDDEN_AS_RANDOM = 0.1
# First numbers of the keys of random streams, so that no two purposes share one.
_TRAINING, _EVALUATION = 1, 2
_EVALUATION_BATCH = 32


@dataclass(frozen=True)
class MaskedLanguageModelling(Task):
    """Settings of the MLM task.

    Attributes:
        text: "stdlib" (the running Python's sources and documentation) or a path.
        vocabulary_size: sub-word tokens, special ones included.
        tokens: length of a window.
        hidden_share: share of a window's tokens that are to be guessed.
        evaluation_windows: how many windows validation and test use at most.
        budget_bytes: text used at most; None for 4 MB of "stdlib", everything of a path.
        embedding: what token embeddings start from: None for random numbers; "trained" for vectors
            made of the training text (`sparse_train.data.embeddings.trained_vectors`); or the path
            of word vectors in the standard text form (GloVe, fastText).
        freeze_embedding: whether they stay as they started, in the output layer too if it is tied.

    Source: Devlin et al. 2019, section 3.1. Of the hidden tokens 80 % become [MASK], 10 % another
    token, 10 % stay. Deviation: each window hides exactly round(hidden_share · tokens) of them, so
    that all steps cost the same, and windows are cut anywhere, without next-sentence prediction.
    """

    default_model: ClassVar[str] = "bert"
    default_preset: ClassVar[str] = "tiny"

    text: str = STDLIB
    vocabulary_size: int = 2048
    tokens: int = 64
    hidden_share: float = 0.15
    evaluation_windows: int = 256
    budget_bytes: int | None = None
    embedding: str | None = None
    freeze_embedding: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise InputError(f"text: value is {self.text!r}; allowed is 'stdlib' or a path")
        check_integer("vocabulary_size", self.vocabulary_size, 1)
        check_integer("tokens", self.tokens, 2)
        check_integer("evaluation_windows", self.evaluation_windows, 1)
        check_number("hidden_share", self.hidden_share, above=0, below=1)
        if self.embedding is not None and (
            not isinstance(self.embedding, str) or not self.embedding
        ):
            raise InputError(
                f"embedding: value is {self.embedding!r}; allowed is 'trained', a path or none"
            )
        if not isinstance(self.freeze_embedding, bool) or (
            self.freeze_embedding and self.embedding is None
        ):
            raise InputError(
                f"freeze_embedding: value is {self.freeze_embedding!r}; allowed is false, or true "
                "with an embedding"
            )

    def prepare(self) -> PreparedText:
        corpus = load_corpus(self.text, budget_bytes=self.budget_bytes)
        return PreparedText(self, corpus, tokenize(corpus, self.vocabulary_size))


class PreparedText(Prepared):
    """Windows of a tokenized corpus."""

    def __init__(
        self, settings: MaskedLanguageModelling, corpus: Corpus, tokenized: TokenizedCorpus
    ) -> None:
        self.settings = settings
        self.tokenized = tokenized
        self._corpus = corpus.describe()
        self._training = self._stream("train")
        self._words = None
        if settings.embedding not in (None, TRAINED):
            self._words = read_vectors(str(settings.embedding))
        self._evaluation: dict[str, list[Batch]] = {}

    @property
    def hidden(self) -> int:
        """Tokens to guess in each window."""
        return max(1, round(self.settings.hidden_share * self.settings.tokens))

    @property
    def digest(self) -> str:
        # A path may differ between machines; the text behind it is in the corpus digest.
        settings = {name: v for name, v in asdict(self.settings).items() if name != "text"}
        named, frozen = settings.pop("embedding"), settings.pop("freeze_embedding")
        content = [settings, self._corpus["digest"], self.tokenized.vocabulary_digest]
        if named is not None:
            content += [named if self._words is None else self._words.digest, frozen]
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "corpus": self._corpus,
            "vocabulary": {
                "size": self.tokenized.vocabulary_size,
                "digest": self.tokenized.vocabulary_digest,
            },
            "training_tokens": len(self._training),
            "hidden_tokens_per_window": self.hidden,
            **({} if self.settings.embedding is None else {"embedding": self._described()}),
        }

    def _described(self) -> dict[str, Any]:
        frozen = {"frozen": self.settings.freeze_embedding}
        if self._words is None:
            return {"source": TRAINED, **frozen}
        _, has = self._vectors
        return {
            "source": self._words.source, "digest": self._words.digest,
            "tokens_with_a_vector": int(has.sum()), **frozen,
        }  # fmt: skip

    @cached_property
    def _vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """What the file of word vectors has of the vocabulary."""
        assert self._words is not None
        return of_tokens(self.tokenized.tokenizer, self._words)

    def _start(self, width: int) -> np.ndarray:
        """The embedding to start from, (vocabulary, width)."""
        if self._words is not None:
            return fitted(*self._vectors, width)
        size = self.tokenized.vocabulary_size
        rows = trained_vectors(self._training, size, min(width, size - 1))
        return fitted(rows, np.isin(np.arange(size), self._training), width)

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.bert import Bert, BertConfig

        if model != "bert":
            raise InputError(f"model: value is {model!r}; allowed for task mlm is 'bert'")
        sizes = {"vocabulary": self.tokenized.vocabulary_size, "max_length": self.settings.tokens}
        for name, size in sizes.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task mlm sets it, here to {size}"
                )
        made = Bert(BertConfig.preset(preset, **sizes, **options))
        if self.settings.embedding is not None and not made.tokens.weight.is_meta:
            start = torch.from_numpy(self._start(made.config.width))
            with torch.no_grad():
                made.tokens.weight.copy_(start)
            made.tokens.weight.requires_grad_(not self.settings.freeze_embedding)
        return made

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        from sparse_train.models.bert import UNIT, BertConfig

        return BertConfig.preset(preset, **options).width // UNIT

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """Width in multiples of 8, inner width in proportion, a head count that divides."""
        from sparse_train.models import rounded_width
        from sparse_train.models.bert import UNIT, BertConfig

        full = BertConfig.preset(preset, **options)
        one = full.scaled(rounded_width(share, full.width, UNIT))
        return {**options, "width": one.width, "ffn": one.ffn, "heads": one.heads}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """input_ids (batch, tokens), positions and labels (batch, hidden), all int64."""
        rng = stream(_TRAINING, seed, step)
        starts = rng.integers(0, len(self._training) - self.settings.tokens + 1, batch_size)
        return self._hide(self._windows(self._training, starts), rng)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Mean loss over all hidden tokens, in nats, and the share guessed right."""
        batches = self.evaluation_batches(split)
        was_training = model.training
        model.eval()
        loss = right = n_hidden = 0.0
        try:
            for batch in batches:
                outcome = model(**batch)
                n = batch["labels"].numel()
                loss += float(outcome.loss) * n
                right += int((outcome.logits.argmax(-1) == batch["labels"]).sum())
                n_hidden += n
        finally:
            model.train(was_training)
        return {"loss": loss / n_hidden, "accuracy": right / n_hidden}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """Tokens by their frequency in the training text (each counted once more)."""
        counts = np.bincount(self._training, minlength=self.tokenized.vocabulary_size) + 1.0
        labels = np.concatenate(
            [batch["labels"].numpy().ravel() for batch in self.evaluation_batches(split)]
        )
        loss = -np.log(counts[labels] / counts.sum()).mean()
        right = (labels == counts.argmax()).mean()
        return {"unigram": {"loss": float(loss), "accuracy": float(right)}}

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        check_split(split)
        if split not in self._evaluation:
            self._evaluation[split] = self._fixed_batches(split)
        return self._evaluation[split]

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        outcome = model(**batch)
        right = (outcome.logits.argmax(-1) == batch["labels"]).float().mean()
        return {"loss": outcome.loss, "accuracy": right}

    def _stream(self, split: str) -> np.ndarray:
        tokens = self.tokenized.stream(split)
        if len(tokens) < self.settings.tokens:
            raise InputError(
                f"tokens: value is {self.settings.tokens}; the {split} text of "
                f"{self.settings.text} has {len(tokens)} tokens; allowed is at most that many"
            )
        return tokens

    def _fixed_batches(self, split: str) -> list[Batch]:
        """Windows spread evenly over a split that do not overlap, hidden once and for all."""
        tokens = self._stream(split)
        fit = len(tokens) // self.settings.tokens
        n = min(fit, self.settings.evaluation_windows)
        starts = (np.arange(n) * fit // n) * self.settings.tokens
        rng = stream(_EVALUATION, check_split(split))
        whole = self._hide(self._windows(tokens, starts), rng)
        pieces = {name: torch.split(t, _EVALUATION_BATCH) for name, t in whole.items()}
        return [
            dict(zip(pieces, parts, strict=True)) for parts in zip(*pieces.values(), strict=True)
        ]

    def _windows(self, tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return tokens[starts[:, None] + np.arange(self.settings.tokens)].astype(np.int64)

    def _hide(self, windows: np.ndarray, rng: np.random.Generator) -> Batch:
        """Hides some tokens of each window (batch, tokens)."""
        order = np.argsort(rng.random(windows.shape), axis=1)
        chosen = np.sort(order[:, : self.hidden], axis=1)  # (batch, hidden)
        answers = np.take_along_axis(windows, chosen, axis=1)
        fate = rng.random(chosen.shape)
        n_vocabulary = self.tokenized.vocabulary_size
        random = rng.integers(len(SPECIAL_TOKENS), n_vocabulary, chosen.shape)
        shown = np.where(fate < _HIDDEN_AS_MASK + _HIDDEN_AS_RANDOM, random, answers)
        shown = np.where(fate < _HIDDEN_AS_MASK, MASK, shown)
        inputs = windows.copy()
        np.put_along_axis(inputs, chosen, shown, axis=1)
        arrays = {"input_ids": inputs, "positions": chosen, "labels": answers}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


TASK = MaskedLanguageModelling
