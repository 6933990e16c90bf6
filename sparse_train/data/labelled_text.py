"""Texts with their classes: snippets of the standard library, or a table of the user's."""

from __future__ import annotations

import csv
import hashlib
import io
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, unknown
from sparse_train.data import safe_files
from sparse_train.data.text import SPLITS, STDLIB, Document, load_corpus, split_of

_LABELS = ("label", "class", "category", "target")
_TEXTS = ("text", "sentence", "content", "review", "snippet")
_NOT_WORDS = re.compile(r"[\W_]+")
_LIBRARY_BYTES = 1 << 26  # more than the standard library has
_SNIPPET_CHARACTERS = 200
_LEAST_FILES = 6
# Snippets of a package, so that the large ones do not make up everything.
_MOST = {"train": 600, "validation": 60, "test": 60}
_HELD_SHARE = 0.12
_LEAST_ROWS = 20
_MOST_CLASSES = 1000
_WANTED = "a CSV or TSV file (also .gz) with a header, a column of labels and one of texts"


@dataclass(frozen=True)
class LabelledText:
    """Texts in three splits.

    Attributes:
        source: "stdlib" or the path.
        classes: their names; a label is a place among them.
        parts: split → texts and labels, of which each split has at least one.
        n_left_out: rows without text, repeated ones, and those of rare classes.
    """

    source: str
    classes: tuple[str, ...]
    parts: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
    n_left_out: int = 0

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of classes, texts and labels by split; 32 hexadecimal digits."""
        hashed = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
        for name in SPLITS:
            for text, label in zip(*self.parts[name], strict=True):
                content = text.encode()
                hashed.update(f"{name}\0{label}\0{len(content)}\0".encode() + content)
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Source, classes, sizes and digest, for a run's record."""
        return {
            "source": self.source, "classes": list(self.classes), "digest": self.digest,
            "texts": {name: len(self.parts[name][0]) for name in SPLITS},
            "left_out": self.n_left_out, "python": platform.python_version(),
        }  # fmt: skip


def load_labelled(
    source: str = STDLIB,
    *,
    classes: int = 10,
    label_column: str | None = None,
    text_column: str | None = None,
) -> LabelledText:
    """Texts with their classes.

    Args:
        source: "stdlib": snippets of the running Python's library, whose class is the package that
            they are from; or the path of a CSV or TSV file with a header, also gzipped.
        classes: of "stdlib", how many packages: those with most text.
        label_column, text_column: of a table; None looks for usual names.

    A package's files are divided among the splits, so that no file is in two. Of a table, a hash
    of a row's words decides: texts that differ in case or punctuation alone fall together. Classes
    of fewer than 20 rows are left out.

    Raises:
        InputError: nothing there, a broken or wrongly encoded file, columns that are not there, or
            too little text.
    """
    if source == STDLIB:
        return _library(classes)
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"text {source!r}: no such file; wanted is {_WANTED}, or 'stdlib'")
    rows = read_table(safe_files.read_text(path), path.name, str(path))
    return _of_rows(str(path), *_columns(rows, label_column, text_column, str(path)))


def read_table(text: str, name: str, where: str) -> list[list[str]]:
    """Rows of a table with a header: CSV with quotes, or tabs without, by the file's name.

    Raises:
        InputError: a row with another number of fields than the header, or broken quotes.
    """
    if name.removesuffix(".gz").endswith((".tsv", ".txt")):
        rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    else:
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        except csv.Error as error:
            raise InputError(f"{where}: not a CSV table ({error})") from None
    if not rows:
        raise InputError(f"{where}: is empty; wanted is {_WANTED}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{where}: row {number} has {len(row)} fields; allowed are {len(rows[0])}, as in "
                "the header"
            )
    return rows


def _columns(
    rows: Sequence[Sequence[str]], label: str | None, text: str | None, where: str
) -> tuple[list[str], list[str]]:
    header = [cell.strip() for cell in rows[0]]
    found = []
    for option, name, usual in (("label_column", label, _LABELS), ("text_column", text, _TEXTS)):
        if name is not None:
            if name not in header:
                raise InputError(f"{option}: {where}: {unknown('column', name, header)}")
            found.append(header.index(name))
            continue
        places = [i for i, cell in enumerate(header) if cell.lower() in usual]
        if not places:
            raise InputError(
                f"{where}: columns are {', '.join(header)}; wanted is one of "
                f"{', '.join(usual)}, or name yours with {option}"
            )
        found.append(places[0])
    return [row[found[0]].strip() for row in rows[1:]], [row[found[1]].strip() for row in rows[1:]]


def _of_rows(source: str, labels: Sequence[str], texts: Sequence[str]) -> LabelledText:
    unique: dict[str, tuple[str, str]] = {}
    for label, text in zip(labels, texts, strict=True):
        if label and text:
            unique.setdefault(text, (label, _NOT_WORDS.sub(" ", text.lower()).strip()))
    counts = Counter(label for label, _ in unique.values())
    classes = tuple(sorted(label for label, n in counts.items() if n >= _LEAST_ROWS))
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise InputError(
            f"{source}: {len(classes)} classes have {_LEAST_ROWS} different texts or more; allowed "
            f"are 2 to {_MOST_CLASSES}"
        )
    number = {label: i for i, label in enumerate(classes)}
    rows: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
    for text, (label, words) in sorted(unique.items()):
        if label in number:
            rows[split_of(words)].append((text, number[label]))
    kept = sum(map(len, rows.values()))
    return _made(source, classes, rows, len(texts) - kept)


def _library(classes: int) -> LabelledText:
    packages: dict[str, list[Document]] = {}
    for document in load_corpus(STDLIB, budget_bytes=_LIBRARY_BYTES).documents:
        package, slash, _ = document.name.partition("/")
        if slash and package != "pydoc_data":
            packages.setdefault(package, []).append(document)
    large = {name: files for name, files in packages.items() if len(files) >= _LEAST_FILES}
    if not 2 <= classes <= len(large):
        raise InputError(
            f"classes: value is {classes}; allowed is 2 to {len(large)}, the packages of this "
            f"Python with {_LEAST_FILES} files or more"
        )
    size = {name: sum(len(d.text) for d in files) for name, files in large.items()}
    chosen = tuple(sorted(sorted(large, key=lambda name: (-size[name], name))[:classes]))
    rows: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
    for label, package in enumerate(chosen):
        for split, files in _files_of(large[package]).items():
            found = [snippet for document in files for snippet in snippets(document.text)]
            rows[split] += [(text, label) for text in _spread(found, _MOST[split])]
    return _made(STDLIB, chosen, rows, 0)


def _files_of(files: Iterable[Document]) -> dict[str, list[Document]]:
    """A package's files by split: to test and validation about an eighth of the text each."""
    order = sorted(files, key=lambda d: hashlib.blake2b(d.name.encode(), digest_size=8).digest())
    wanted = _HELD_SHARE * sum(len(d.text) for d in order)
    parts: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in order:
        held = next(
            (s for s in ("test", "validation")
             if sum(len(d.text) for d in parts[s]) + len(document.text) / 2 <= wanted
             or (not parts[s] and len(document.text) <= 2 * wanted)),
            "train",
        )  # fmt: skip
        parts[held].append(document)
    return parts


def snippets(text: str) -> list[str]:
    """Consecutive lines of about 200 characters, not overlapping; empty lines are left out.

    >>> [len(s) for s in snippets("x" * 99 + "\\n" + "y" * 150 + "\\n" + "z" * 300)]
    [250, 300]
    """
    found, lines, size = [], [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        lines.append(line.rstrip())
        size += len(line)
        if size >= _SNIPPET_CHARACTERS:
            found.append("\n".join(lines))
            lines, size = [], 0
    return found


def _spread(items: Sequence[str], most: int) -> list[str]:
    """At most so many of a list, evenly spread over it."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _made(
    source: str, classes: tuple[str, ...], rows: dict[str, list[tuple[str, int]]], left_out: int
) -> LabelledText:
    for name in SPLITS:
        if not rows[name]:
            raise InputError(f"{source}: no text falls to {name}; allowed is a larger table")
    seen = {label for _, label in rows["train"]}
    missing = [name for label, name in enumerate(classes) if label not in seen]
    if missing:
        raise InputError(
            f"{source}: classes without a training text: {', '.join(missing[:3])}; allowed is a "
            "larger table"
        )
    parts = {
        name: (tuple(text for text, _ in pairs), tuple(label for _, label in pairs))
        for name, pairs in rows.items()
    }
    return LabelledText(source, classes, parts, left_out)
