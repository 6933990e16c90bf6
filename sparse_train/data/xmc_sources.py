"""Extreme classification without a download: a generated set, and Python's own library."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.checks import check_number
from hwsim.errors import InputError
from hwsim.files import replacing
from sparse_train.data.tensor_files import read_arrays, write_arrays
from sparse_train.data.text import SPLITS, STDLIB, Corpus, load_corpus
from sparse_train.data.vocabulary import cache_folder
from sparse_train.data.xmc_format import Rows, XmcData

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_BRANCHES = 16
_TOKENS_OF_NODE = 8
_LIBRARY_BYTES = 64 << 20
_FORMAT = 1  # of the kept data: raise it when the same sources would give others


@dataclass(frozen=True)
class Function:
    """One function of a source file: what it calls, and the words that speak of it."""

    file: str
    split: str
    calls: frozenset[str]
    words: Counter[str]


def library_calls() -> XmcData:
    """Which names does a function of Python's library call? Asked of what it says of itself.

    An example is a function. Features are the words of its name, its parameters and its docstring
    (log(1 + count) · inverse document frequency, of length 1); labels are the names called in it.
    Labels and features are those of at least two training functions. Split by file. Sources are
    parsed, not run.
    """
    corpus = load_corpus(STDLIB, budget_bytes=_LIBRARY_BYTES)
    path = cache_folder() / "xmc" / f"calls-{_FORMAT}-{corpus.digest}.safetensors"
    found = _read(path)
    if found is None:
        found = _library_calls(corpus)
        _write(path, found)
    return found


def _library_calls(corpus: Corpus) -> XmcData:
    functions = list(_functions(corpus))
    training = [f for f in functions if f.split == "train"]
    labels = _frequent(Counter(c for f in training for c in f.calls))
    seen = Counter(w for f in training for w in f.words)
    words = _frequent(seen)
    kept = [
        f for f in functions
        if any(c in labels for c in f.calls) and any(w in words for w in f.words)
    ]  # fmt: skip
    places, values, answers = [], [], []
    for function in kept:
        own = sorted(words[w] for w in function.words if w in words)
        names = {words[w]: w for w in function.words if w in words}
        weight = np.array(
            [np.log1p(function.words[names[p]]) * np.log(len(training) / seen[names[p]])
             for p in own]
        )  # fmt: skip
        places.append(np.array(own))
        values.append(weight / max(float(np.linalg.norm(weight)), 1e-9))
        answers.append(np.array(sorted(labels[c] for c in function.calls if c in labels)))
    split = np.array([f.split for f in kept])
    return XmcData(
        STDLIB, len(words), len(labels), Rows.of(places, values), Rows.of(answers),
        {name: np.flatnonzero(split == name) for name in SPLITS},
    )  # fmt: skip


def planted(
    n_outputs: int, n_features: int, n_examples: int, *, noise: float = 0.5, seed: int = 0
) -> XmcData:
    """A hard set whose labels are the leaves of a tree that a learner does not see.

    Each node of the tree (16 branches) has 8 features of its own, drawn from those of all nodes,
    so that features stand for many nodes at once. Labels are as frequent as Zipf's law has it. An
    example has a main label and up to two others, mostly its siblings; its features are some of
    those of the nodes above its labels, the leaf's rarest, and `noise` of all are drawn from
    everything. Split 80 : 10 : 10 at random.

    Raises:
        InputError: a size below 2, or noise that is not in [0, 1).
    """
    for name, value in (("outputs", n_outputs), ("features", n_features), ("examples", n_examples)):
        check_number(name, value, least=2)
    check_number("noise", noise, least=0, below=1)
    rng = np.random.default_rng(np.random.SeedSequence((seed, n_outputs, n_features, n_examples)))
    depth = max(1, int(np.ceil(np.log(n_outputs) / np.log(_BRANCHES))))
    tokens = [
        rng.integers(0, n_features, (-(-n_outputs // _BRANCHES**level), _TOKENS_OF_NODE))
        for level in range(depth + 1)
    ]
    example, label = _planted_labels(rng, n_outputs, n_examples)
    drawn = []
    for level in range(depth + 1):
        nodes = tokens[level][label // _BRANCHES**level]  # (labels, features of the node)
        of_them = rng.integers(0, _TOKENS_OF_NODE, (len(label), 4 if level == 0 else 2))
        drawn.append(np.take_along_axis(nodes, of_them, axis=1))
    true = np.concatenate(drawn, axis=1)
    n_noise = round(true.shape[1] * noise / (1 - noise))
    place = np.concatenate([true, rng.integers(0, n_features, (len(label), n_noise))], axis=1)
    owner = np.repeat(example, place.shape[1])
    features = _counted(owner, place.ravel(), n_examples, n_features)
    part = rng.permutation(n_examples)
    tenth = max(1, n_examples // 10)
    splits = {
        "test": part[:tenth],
        "validation": part[tenth : 2 * tenth],
        "train": part[2 * tenth :],
    }
    return XmcData(
        "planted", n_features, n_outputs, features,
        _counted(example, label, n_examples, n_outputs, weighted=False),
        {name: np.sort(rows) for name, rows in splits.items()},
    )  # fmt: skip


def _planted_labels(
    rng: np.random.Generator, n_outputs: int, n_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """(example, label) pairs: one to three labels of each example, in its order."""
    share = 1 / np.arange(1, n_outputs + 1) ** 0.8
    rank = np.searchsorted(np.cumsum(share / share.sum()), rng.random(n_examples))
    main = rng.permutation(n_outputs)[rank.clip(max=n_outputs - 1)]
    far = rng.random((n_examples, 2)) < 0.2
    anywhere = rng.integers(0, n_outputs, (n_examples, 2))
    near = (main[:, None] // _BRANCHES) * _BRANCHES + rng.integers(0, _BRANCHES, (n_examples, 2))
    extra = np.where(far, anywhere, near).clip(max=n_outputs - 1)
    there = np.arange(2) < rng.integers(0, 3, n_examples)[:, None]
    labels = np.column_stack([main, np.where(there, extra, main[:, None])])
    pairs = np.unique(np.arange(n_examples)[:, None] * n_outputs + labels)
    return pairs // n_outputs, pairs % n_outputs


def _counted(
    example: np.ndarray, place: np.ndarray, n_examples: int, n_places: int, weighted: bool = True
) -> Rows:
    """Rows of the places of each example: log(1 + how often), of length 1; or all 1."""
    pairs, counts = np.unique(example.astype(np.int64) * n_places + place, return_counts=True)
    owner = pairs // n_places
    starts = np.searchsorted(owner, np.arange(n_examples + 1))
    values = np.log1p(counts) if weighted else np.ones(len(pairs))
    if weighted:
        length = np.sqrt(np.bincount(owner, values**2, n_examples))
        values = values / length[owner]
    return Rows(starts, (pairs % n_places).astype(np.int32), values.astype(np.float32))


def _read(path: Path) -> XmcData | None:
    """The kept data; None if there is none, or it cannot be read."""
    try:
        found, _ = read_arrays(path, str(path))
        features, labels = (
            Rows(*(found[f"{kind}.{part}"] for part in ("starts", "places", "values")))
            for kind in ("features", "labels")
        )
        n_features, n_outputs = (int(size) for size in found["sizes"])
        splits = {name: found[name] for name in SPLITS}
    except (InputError, KeyError, ValueError):
        return None
    return XmcData(STDLIB, n_features, n_outputs, features, labels, splits)


def _write(path: Path, data: XmcData) -> None:
    arrays = {name: data.splits[name] for name in SPLITS}
    arrays["sizes"] = np.array([data.n_features, data.n_outputs])
    for kind, rows in (("features", data.features), ("labels", data.labels)):
        for part in ("starts", "places", "values"):
            arrays[f"{kind}.{part}"] = getattr(rows, part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache folder {path.parent}: {error.strerror or error}") from None
    with replacing(path) as part:
        write_arrays(arrays, part)


def _functions(corpus: Corpus) -> Iterator[Function]:
    for document in corpus.documents:
        if not document.name.endswith(".py"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in the sources
            try:
                tree = ast.parse(document.text)
            except SyntaxError:  # templates that are no Python
                continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield Function(document.name, document.split, _calls(node), _words(node))


def _calls(node: ast.AST) -> frozenset[str]:
    called = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
    return frozenset(
        f.id if isinstance(f, ast.Name) else f.attr
        for f in called
        if isinstance(f, (ast.Name, ast.Attribute))
    )


def _words(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Counter[str]:
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    text = " ".join([node.name, *names, ast.get_docstring(node) or ""])
    return Counter(word.lower() for word in _WORD.findall(text))


def _frequent(counts: Counter[str]) -> dict[str, int]:
    """Name → number, of names that occur twice or more, in order of the names."""
    return {name: i for i, name in enumerate(sorted(n for n, c in counts.items() if c > 1))}
