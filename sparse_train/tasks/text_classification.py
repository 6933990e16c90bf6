"""Text classification: a transformer says which class a text is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tokenizers
import torch
from torch import nn

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.data.labelled_text import LabelledText, load_labelled
from sparse_train.data.text import STDLIB
from sparse_train.data.vocabulary import PAD, learn, without_special
from sparse_train.tasks._base import Batch, Task
from sparse_train.tasks._classification import Classified

_LEAST_VOCABULARY = 262


@dataclass(frozen=True)
class TextClassification(Task):
    """Settings of text classification.

    Attributes:
        text: "stdlib" (which package of Python's library is a snippet from?) or the path of a CSV
            or TSV file: see `sparse_train.data.labelled_text.load_labelled`.
        classes: of "stdlib", how many packages.
        label_column, text_column: of a table; None looks for usual names.
        vocabulary_size: sub-word tokens, learnt on the training texts.
        tokens: longest text; what is longer is cut.
    """

    default_model: ClassVar[str] = "text_classifier"
    default_preset: ClassVar[str] = "tiny"

    text: str = STDLIB
    classes: int = 10
    label_column: str | None = None
    text_column: str | None = None
    vocabulary_size: int = 2048
    tokens: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise InputError(f"text: value is {self.text!r}; allowed is 'stdlib' or a path")
        for name in ("label_column", "text_column"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name}: value is {value!r}; allowed is a column's name")
        check_integer("classes", self.classes, 2)
        check_integer("vocabulary_size", self.vocabulary_size, _LEAST_VOCABULARY)
        check_integer("tokens", self.tokens, 1)

    def prepare(self) -> PreparedTexts:
        data = load_labelled(
            self.text, classes=self.classes, label_column=self.label_column,
            text_column=self.text_column,
        )  # fmt: skip
        return PreparedTexts(self, data)


class PreparedTexts(Classified):
    """Texts as token numbers with their labels."""

    evaluation_batch: ClassVar[int] = 128

    def __init__(self, settings: TextClassification, data: LabelledText) -> None:
        super().__init__()
        self.settings = settings
        self.data = data
        learnt = learn(data.parts["train"][0], settings.vocabulary_size)
        # A text that spells "[PAD]" must not become padding.
        self.tokenizer = without_special(learnt)
        self._training = self.examples("train")

    @cached_property
    def digest(self) -> str:
        named = ("text", "label_column", "text_column")  # what they name is in the data's digest
        settings = {name: v for name, v in asdict(self.settings).items() if name not in named}
        vocabulary = hashlib.blake2b(self.tokenizer.to_str().encode(), digest_size=16).hexdigest()
        text = json.dumps([settings, self.data.digest, vocabulary], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "text": self.data.describe(),
            "vocabulary": self.tokenizer.get_vocab_size(),
            "tokenizers": tokenizers.__version__,
        }

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.text_classifier import TextClassifier, TextClassifierConfig

        if model != "text_classifier":
            raise InputError(
                f"model: value is {model!r}; allowed for task text_classification: "
                "'text_classifier'"
            )
        sizes = {
            "vocabulary": self.tokenizer.get_vocab_size(),
            "max_length": self.settings.tokens,
            "classes": len(self.data.classes),
        }
        for name, size in sizes.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task text_classification sets "
                    f"it, here to {size}"
                )
        return TextClassifier(TextClassifierConfig.preset(preset, **sizes, **options))

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        from sparse_train.models.text_classifier import TextClassifierConfig

        one = TextClassifierConfig.preset(preset, **options)
        return one.width // one.heads

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        from sparse_train.models.text_classifier import TextClassifierConfig

        one = TextClassifierConfig.preset(preset, **options).scaled(share)
        return {**options, "width": one.width, "ffn": one.ffn, "heads": one.heads}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """input_ids (batch, tokens), lengths and labels (batch,), all int64; see `chosen`."""
        n = len(self._training["labels"])
        places = self.chosen(step, batch_size, seed, n, "the training texts")
        chosen = torch.from_numpy(places)
        return {name: tensor[chosen] for name, tensor in self._training.items()}

    def examples(self, split: str) -> Batch:
        texts, labels = self.data.parts[split]
        encoded = self.tokenizer.encode_batch_fast(list(texts))
        ids = np.full((len(texts), self.settings.tokens), PAD, dtype=np.int64)
        lengths = np.ones(len(texts), dtype=np.int64)
        for row, one in enumerate(encoded):
            tokens = one.ids[: self.settings.tokens]
            ids[row, : len(tokens)] = tokens
            lengths[row] = max(1, len(tokens))
        return {
            "input_ids": torch.from_numpy(ids),
            "lengths": torch.from_numpy(lengths),
            "labels": torch.tensor(labels, dtype=torch.long),
        }


TASK = TextClassification
