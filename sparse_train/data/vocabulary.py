"""A sub-word vocabulary, learnt on the training files, and the corpus as token numbers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hwsim.errors import InputError
from hwsim.files import replacing
from sparse_train.data.tensor_files import read_arrays, write_arrays
from sparse_train.data.text import SPLITS, Corpus

SPECIAL_TOKENS = ("[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]")
PAD, MASK, UNK, CLS, SEP = range(len(SPECIAL_TOKENS))
_BYTES = 256
_LONGEST_TOKEN = 16
# Part of the cache's key: raise it when the same corpus would give other tokens.
_FORMAT = 1


@dataclass(frozen=True)
class TokenizedCorpus:
    """A corpus as token numbers, read from its cache file only when a split is asked for.

    Attributes:
        path: the cache file (safetensors): one int32 stream per split, the vocabulary as JSON in
            its metadata.
        vocabulary_json: of the `tokenizers` library.
    """

    path: Path
    vocabulary_json: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was learnt."""
        return Tokenizer.from_str(self.vocabulary_json)

    @cached_property
    def vocabulary_size(self) -> int:
        """Tokens in the vocabulary, special ones included; fewer than asked for on a small text."""
        return self.tokenizer.get_vocab_size()

    @cached_property
    def vocabulary_digest(self) -> str:
        """Of the vocabulary as JSON."""
        return hashlib.blake2b(self.vocabulary_json.encode(), digest_size=16).hexdigest()

    def stream(self, split: str) -> np.ndarray:
        """The documents of a split one after the other, each ended by [SEP]; int32, (tokens,)."""
        if split not in SPLITS:
            raise InputError(f"split: value is {split!r}; allowed: {', '.join(SPLITS)}")
        with safe_open(self.path, framework="numpy") as file:
            return file.get_tensor(split)


def tokenize(corpus: Corpus, vocabulary_size: int, *, cache: Path | None = None) -> TokenizedCorpus:
    """Learns a byte-level BPE on the training documents and applies it to all.

    The result is kept in a cache file that is named after corpus digest, vocabulary size and
    library version, and written atomically: processes that race write the same content, and the
    last to finish wins. A cache file that cannot be read is made anew.

    Args:
        vocabulary_size: special tokens and the 256 bytes included, so at least 262.
        cache: folder; by default `nettime` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        InputError: vocabulary too small, or a cache folder that cannot be written.

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units";
    byte-level as in Radford et al. 2019, so that no text is unknown.
    """
    least = len(SPECIAL_TOKENS) + _BYTES + 1
    if vocabulary_size < least:
        raise InputError(
            f"vocabulary_size: value is {vocabulary_size}; allowed is at least {least} "
            "(256 bytes, 5 special tokens, 1 learnt)"
        )
    key = f"{corpus.digest}-{vocabulary_size}-{tokenizers.__version__}-{_FORMAT}"
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    path = (cache or cache_folder()) / "tokens" / f"{name}.safetensors"
    found = _read(path)
    if found is not None:
        return found
    tokenizer = learn((d.text for d in corpus.split("train")), vocabulary_size)
    streams = {split: _encode(tokenizer, corpus, split) for split in SPLITS}
    vocabulary = tokenizer.to_str()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache folder {path.parent}: {error.strerror or error}") from None
    with replacing(path) as part:
        write_arrays(streams, part, {"vocabulary": vocabulary})
    return TokenizedCorpus(path, vocabulary)


def cache_folder() -> Path:
    """Where prepared data is kept: `nettime` in $XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nettime"


def _read(path: Path) -> TokenizedCorpus | None:
    try:
        streams, about = read_arrays(path, str(path))
    except InputError:
        return None
    whole = set(SPLITS) <= set(streams) and "vocabulary" in about
    return TokenizedCorpus(path, about["vocabulary"]) if whole else None


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens, SPECIAL_TOKENS first."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=_LONGEST_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _encode(tokenizer: Tokenizer, corpus: Corpus, split: str) -> np.ndarray:
    # Without special tokens: a text that spells "[MASK]" must not become the mask token.
    plain = without_special(tokenizer)
    encoded = plain.encode_batch_fast([d.text for d in corpus.split(split)])
    pieces = [np.array([*e.ids, SEP], dtype=np.int32) for e in encoded]
    return np.concatenate(pieces)


def without_special(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, to which the special tokens' spellings are ordinary text."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(content))
