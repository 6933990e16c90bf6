"""Machine translation: an encoder-decoder learns from sentences with their translations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tokenizers
import torch
from torch import Tensor, nn

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.data.parallel_text import CATALOGUES, ParallelText, load_parallel
from sparse_train.data.vocabulary import CLS, PAD, SEP, learn, without_special
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream

_TRAINING = 1
_EVALUATION_BATCH = 64
_LEAST_VOCABULARY = 262


@dataclass(frozen=True)
class Translation(Task):
    """Settings of the translation task.

    Attributes:
        text: "catalogues" (the gettext catalogues of this machine) or a path: see
            `sparse_train.data.parallel_text.load_parallel`.
        source_language, target_language: codes as in the files' names.
        vocabulary_size: sub-words of both languages together, special tokens included.
        tokens: longest source, and longest target with its end mark. Longer pairs are left out of
            training; in evaluation the source is cut, and the whole reference counts.
        evaluation_pairs: how many pairs validation and test use at most.
        max_pairs: of the whole text; None for all.
    """

    default_model: ClassVar[str] = "seq2seq"
    default_preset: ClassVar[str] = "tiny"

    text: str = CATALOGUES
    source_language: str = "en"
    target_language: str = "de"
    vocabulary_size: int = 4096
    tokens: int = 32
    evaluation_pairs: int = 200
    max_pairs: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise InputError(f"text: value is {self.text!r}; allowed is 'catalogues' or a path")
        check_integer("vocabulary_size", self.vocabulary_size, _LEAST_VOCABULARY)
        check_integer("tokens", self.tokens, 2)
        check_integer("evaluation_pairs", self.evaluation_pairs, 1)
        if self.max_pairs is not None:
            check_integer("max_pairs", self.max_pairs, 1)

    def prepare(self) -> PreparedTranslation:
        _bleu_library()
        languages = (self.source_language, self.target_language)
        return PreparedTranslation(
            self, load_parallel(self.text, languages, max_pairs=self.max_pairs)
        )


class PreparedTranslation(Prepared):
    """Pairs of sentences as token numbers.

    The metric is chrF, which tells models apart while their BLEU is still near 0.
    """

    metric: ClassVar[str] = "chrf"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, settings: Translation, text: ParallelText) -> None:
        self.settings = settings
        self.text = text
        training = text.split("train")
        learnt = learn((side for pair in training for side in pair), settings.vocabulary_size)
        # A sentence that spells "[SEP]" must not end there.
        self.tokenizer = without_special(learnt)
        self._evaluation: dict[str, list[Batch]] = {}
        sources, targets = self._encoded(training)
        most = settings.tokens
        fit = [
            i for i, (s, t) in enumerate(zip(sources, targets, strict=True))
            if len(s) <= most and len(t) < most
        ]  # fmt: skip
        if not fit:
            raise InputError(
                f"tokens: value is {most}; none of {len(sources)} training pairs is as short; "
                "allowed is a length that some have"
            )
        self.n_too_long = len(sources) - len(fit)
        self._training = self._tensors([sources[i] for i in fit], [targets[i] for i in fit])

    @cached_property
    def digest(self) -> str:
        settings = {name: v for name, v in asdict(self.settings).items() if name != "text"}
        vocabulary = hashlib.blake2b(self.tokenizer.to_str().encode(), digest_size=16).hexdigest()
        content = [settings, self.text.digest, vocabulary]
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "text": self.text.describe(),
            "vocabulary": self.tokenizer.get_vocab_size(),
            "tokenizers": tokenizers.__version__,
            "training_pairs": len(self._training["source_ids"]),
            "training_pairs_too_long": self.n_too_long,
            "sacrebleu": _bleu_library().__version__,
        }

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.seq2seq import Seq2Seq, Seq2SeqConfig

        if model != "seq2seq":
            raise InputError(f"model: value is {model!r}; allowed for task translation: 'seq2seq'")
        sizes = {
            "vocabulary": self.tokenizer.get_vocab_size(),
            "max_length": self.settings.tokens,
            "padding": PAD,
        }
        for name, size in sizes.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task translation sets it, here "
                    f"to {size}"
                )
        return Seq2Seq(Seq2SeqConfig.preset(preset, **sizes, **options))

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        from sparse_train.models.seq2seq import UNIT, Seq2SeqConfig

        return Seq2SeqConfig.preset(preset, **options).width // UNIT

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """Width in multiples of 8, inner width in proportion, a head count that divides."""
        from sparse_train.models import rounded_width
        from sparse_train.models.seq2seq import UNIT, Seq2SeqConfig

        full = Seq2SeqConfig.preset(preset, **options)
        one = full.scaled(rounded_width(share, full.width, UNIT))
        return {**options, "width": one.width, "ffn": one.ffn, "heads": one.heads}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """source_ids, target_ids and labels, all (batch, tokens) int64, filled up with [PAD].

        And source_mask, (batch, 1, 1, tokens) float32: 0 for tokens, −∞ for [PAD].
        """
        rng = stream(_TRAINING, seed, step)
        rows = torch.from_numpy(rng.integers(0, len(self._training["labels"]), batch_size))
        return _whole({name: whole[rows] for name, whole in self._training.items()})

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Mean loss over target tokens, in nats; BLEU and chrF (0 to 100) of greedy decoding."""
        batches = self.evaluation_batches(split)
        was_training = model.training
        model.eval()
        loss = n_tokens = 0.0
        made: list[str] = []
        try:
            for batch in batches:
                n = int((batch["labels"] != PAD).sum())
                loss += float(model(**batch).loss) * n
                n_tokens += n
                made += self.translations(model, batch["source_ids"])
        finally:
            model.train(was_training)
        library = _bleu_library()
        references = [[target for _, target in self._evaluation_pairs(split)]]
        return {
            "loss": loss / n_tokens,
            "bleu": float(library.corpus_bleu(made, references).score),
            "chrf": float(library.corpus_chrf(made, references).score),
        }

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """The source as it is, and the target of the training pair with the most alike source.

        Alike are sources that share many letter trigrams, as a share of all that either has.
        """
        pairs = self._evaluation_pairs(split)
        known = [(_trigrams(source), target) for source, target in self.text.split("train")]
        nearest = []
        for source, _ in pairs:
            own = _trigrams(source)
            nearest.append(max(known, key=lambda one: len(own & one[0]) / len(own | one[0]))[1])
        library = _bleu_library()
        references = [[target for _, target in pairs]]
        guesses = {"source copied": [source for source, _ in pairs], "nearest neighbour": nearest}
        return {
            rule: {
                "bleu": float(library.corpus_bleu(made, references).score),
                "chrf": float(library.corpus_chrf(made, references).score),
            }
            for rule, made in guesses.items()
        }

    def translations(self, model: nn.Module, source_ids: Tensor) -> list[str]:
        """Greedily decoded texts of a batch of sources (batch, tokens)."""
        ids: Tensor = model.translate(source_ids, CLS, SEP, self.settings.tokens)  # type: ignore
        return [
            self.tokenizer.decode([t for t in row if t > SEP], skip_special_tokens=False)
            for row in ids.tolist()
        ]

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        pairs = self._evaluation_pairs(split)
        if split not in self._evaluation:
            most = self.settings.tokens
            sources, targets = self._encoded(pairs)
            whole = self._tensors([s[:most] for s in sources], [t[: most - 1] for t in targets])
            pieces = {n: torch.split(t, _EVALUATION_BATCH) for n, t in _whole(whole).items()}
            self._evaluation[split] = [
                dict(zip(pieces, parts, strict=True))
                for parts in zip(*pieces.values(), strict=True)
            ]
        return self._evaluation[split]

    def _evaluation_pairs(self, split: str) -> Sequence[tuple[str, str]]:
        """Pairs spread evenly over a split."""
        check_split(split)
        pairs = self.text.split(split)
        n = min(len(pairs), self.settings.evaluation_pairs)
        return [pairs[i * len(pairs) // n] for i in range(n)]

    def _encoded(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        sides = (self.tokenizer.encode_batch_fast([p[side] for p in pairs]) for side in (0, 1))
        sources, targets = ([e.ids for e in side] for side in sides)
        return sources, targets

    def _tensors(self, sources: list[list[int]], targets: list[list[int]]) -> Batch:
        """(pairs, tokens) int32: the decoder sees [CLS] and the target, and predicts it and [SEP].

        What is predicted is one token longer than the target, so that is cut to `tokens` − 1.
        """
        shape = (len(sources), self.settings.tokens)
        source, seen, labels = (np.full(shape, PAD, dtype=np.int32) for _ in range(3))
        for i, (s, t) in enumerate(zip(sources, targets, strict=True)):
            source[i, : len(s)] = s
            seen[i, : len(t) + 1] = [CLS, *t]
            labels[i, : len(t) + 1] = [*t, SEP]
        arrays = {"source_ids": source, "target_ids": seen, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _whole(ids: Batch) -> Batch:
    """Token numbers as a model takes them, and what of the source is no token."""
    from sparse_train.models.seq2seq import padding_mask

    batch = {name: tensor.long() for name, tensor in ids.items()}
    return {**batch, "source_mask": padding_mask(batch["source_ids"], PAD)}


def _trigrams(text: str) -> set[str]:
    """Of a text with a space before and after, so that none is empty."""
    padded = f"  {text.lower()} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _bleu_library() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise InputError(
            "task translation: sacrebleu is not installed; install it with: "
            "pip install 'nettime[tasks]'"
        ) from None
    return sacrebleu


TASK = Translation
