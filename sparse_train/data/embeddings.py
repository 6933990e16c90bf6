"""Word vectors to start from: files in the standard text form, or trained here on the corpus."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from hwsim.errors import InputError
from sparse_train.data import safe_files
from sparse_train.data.vocabulary import SPECIAL_TOKENS

TRAINED = "trained"
_LARGEST_BYTES = 4 << 30
_DIGITS = 18  # of a count; Python refuses to read thousands
_WINDOW = 5
_SMOOTHING = 0.75  # of context counts: Levy et al. (2015), section 3.1
_SHARE_STD = 0.02  # of the vectors' entries, as BERT's own embeddings start
_HOW = (
    "wanted is a text file (also .gz) of a word and its numbers a line, as GloVe "
    "(https://nlp.stanford.edu/projects/glove) and fastText (.vec) have it; or 'trained'"
)


@dataclass(frozen=True)
class WordVectors:
    """words, and their vectors float32 (words, size)."""

    source: str
    words: tuple[str, ...]
    vectors: np.ndarray

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of words and vectors; 32 hexadecimal digits."""
        hashed = hashlib.blake2b("\0".join(self.words).encode(), digest_size=16)
        hashed.update(np.ascontiguousarray(self.vectors).tobytes())
        return hashed.hexdigest()


def read_vectors(path: str) -> WordVectors:
    """Vectors of a file in the standard text form, with or without the line "words size".

    A word may hold spaces, as some of GloVe's do: its numbers are the last of the line. Of a word
    that is there twice the first counts.

    Raises:
        InputError: not there, not UTF-8, truncated, lines of different sizes, no finite numbers.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise InputError(f"embedding {path!r}: no such file; {_HOW}")
    lines = safe_files.read_text(place, limit_bytes=_LARGEST_BYTES).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    head = lines[0].split() if lines else []
    promised = None
    if len(head) == 2 and all(part.isdecimal() for part in head):
        longest = max(map(len, head))
        if longest > _DIGITS:
            raise InputError(
                f"{place}: line 1: a count has {longest} digits; allowed are at most {_DIGITS}"
            )
        promised, size, first = int(head[0]), int(head[1]), 1
    else:
        size, first = len(head) - 1, 0
    if size < 1 or len(lines) == first:
        raise InputError(f"{place}: holds no vector; {_HOW}")
    if promised is not None and len(lines) - 1 != promised:
        raise InputError(f"{place}: has {len(lines) - 1} vectors where line 1 says {promised}")
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(lines[first:], first + 1):
        word, vector = _entry(line, size, f"{place}: line {number}")
        found.setdefault(word, vector)
    return WordVectors(place.name, tuple(found), np.stack(list(found.values())))


def _entry(line: str, size: int, where: str) -> tuple[str, np.ndarray]:
    parts = line.rstrip().rsplit(" ", size)
    if len(parts) != size + 1 or not parts[0]:
        raise InputError(f"{where}: allowed are a word and {size} numbers, spaces between them")
    try:
        vector = np.array(parts[1:], dtype=np.float32)
    except ValueError:
        vector = np.array([np.nan], np.float32)
    if not np.isfinite(vector).all():
        raise InputError(f"{where}: allowed are a word and {size} finite numbers")
    return parts[0], vector


def trained_vectors(tokens: np.ndarray, vocabulary: int, size: int) -> np.ndarray:
    """Vectors float32 (vocabulary, size) of a stream of token numbers, without any network.

    Counts which tokens stand within five places of each other, takes the positive pointwise mutual
    information with context counts to the power 0.75, and of that matrix the leading singular
    vectors times the roots of the singular values. The same tokens give the same vectors.

    Source: Levy and Goldberg (2014), "Neural word embedding as implicit matrix factorization";
    Levy et al. (2015), "Improving distributional similarity", section 3.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    if not 1 <= size < vocabulary:
        raise InputError(f"size: value is {size}; allowed is 1 to {vocabulary - 1}, the vocabulary")
    keys = np.concatenate(
        [tokens[:-d].astype(np.int64) * vocabulary + tokens[d:] for d in range(1, _WINDOW + 1)]
    )
    pairs, counts = np.unique(keys, return_counts=True)
    rows, columns = np.divmod(pairs, vocabulary)
    square = (vocabulary, vocabulary)
    one_way = coo_matrix((counts.astype(np.float64), (rows, columns)), shape=square)
    both = (one_way + one_way.T).tocoo()
    of_word = np.asarray(both.sum(1)).ravel()
    of_context = of_word**_SMOOTHING
    share = of_context[both.col] / of_context.sum()
    information = np.log(both.data / (of_word[both.row] * share))
    positive = np.maximum(information, 0)
    matrix = coo_matrix((positive, (both.row, both.col)), shape=square).tocsr()
    start = np.random.default_rng(0).standard_normal(vocabulary)
    left, values, _ = svds(matrix, k=size, v0=start)
    order = np.argsort(-values, kind="stable")
    left, values = left[:, order], np.maximum(values[order], 0)
    # A singular vector's sign is free: the largest entry is made positive.
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(size)])
    return (left * signs * np.sqrt(values)).astype(np.float32)


def of_tokens(tokenizer: Tokenizer, words: WordVectors) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float32 (vocabulary, size) of sub-words, and which of them the file has, bool.

    A sub-word has the vector of the word that it spells, as it is or else in lower case, without
    the space before it; others are zero.
    """
    place = {word: i for i, word in enumerate(words.words)}
    n = tokenizer.get_vocab_size()
    rows = np.zeros((n, words.vectors.shape[1]), np.float32)
    has = np.zeros(n, dtype=bool)
    for token in range(len(SPECIAL_TOKENS), n):
        text = tokenizer.decode([token]).strip()
        found = place.get(text, place.get(text.lower()))
        if text and found is not None:
            rows[token], has[token] = words.vectors[found], True
    return rows, has


def fitted(rows: np.ndarray, has: np.ndarray, width: int) -> np.ndarray:
    """A start for an embedding float32 (tokens, width), with entries of standard deviation 0.02.

    Longer vectors keep their leading principal directions; shorter ones are filled up, and tokens
    without a vector start, as N(0, 0.02²).
    """
    rng = np.random.default_rng(np.random.SeedSequence([len(rows), width]))
    table = (_SHARE_STD * rng.standard_normal((len(rows), width))).astype(np.float32)
    known = rows[has].astype(np.float64)
    known = known - known.mean(0) if len(known) else known
    if known.shape[1] > width:
        _, axes = np.linalg.eigh(known.T @ known)
        known = known @ _upright(axes[:, ::-1][:, :width])
    scale = known.std() if known.size else 0.0
    if scale > 0:
        table[has, : known.shape[1]] = known * (_SHARE_STD / scale)
    return table


def _upright(axes: np.ndarray) -> np.ndarray:
    """Directions with their largest entry positive, so that their sign is not chance."""
    return axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
