"""Text to train on: Python's own sources and documentation, or any text of the user's.

A corpus is a list of documents. Each belongs to exactly one of training, validation and test: which
one is decided by a hash of its name alone, so it never changes when other files come or go.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from sparse_train.data.safe_files import LARGEST_BYTES, read_bytes

SPLITS = ("train", "validation", "test")
STDLIB = "stdlib"
STDLIB_BUDGET_BYTES = 4_000_000
PART_BYTES = 8_192
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1

# Tests and their data, third-party packages, tables of character codes.
_STDLIB_LEFT_OUT = {
    "__pycache__", "dist-packages", "encodings", "idle_test", "lib-dynload", "site-packages",
    "test", "tests",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """One file, one part of a single file, or one topic of the documentation."""

    name: str
    text: str

    @property
    def split(self) -> str:
        """Where it belongs: by its name alone."""
        return split_of(self.name)


@dataclass(frozen=True)
class Corpus:
    """The documents of a source, in order of their names.

    Attributes:
        source: "stdlib" or the path given.
        documents: at least one in each split.
        n_skipped: files of a folder that are no UTF-8 text; they are left out.
        n_beyond_budget: documents left out because of the byte budget.
        budget_bytes: that budget; None for no limit.
    """

    source: str
    documents: tuple[Document, ...]
    n_skipped: int = 0
    n_beyond_budget: int = 0
    budget_bytes: int | None = None

    def split(self, name: str) -> tuple[Document, ...]:
        """The documents of one split."""
        if name not in SPLITS:
            raise InputError(f"split: value is {name!r}; allowed: {', '.join(SPLITS)}")
        return tuple(d for d in self.documents if d.split == name)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of every document's name, split and content; 32 hexadecimal digits."""
        hashed = hashlib.blake2b(digest_size=16)
        for document in self.documents:
            content = document.text.encode()
            head = f"{document.name}\0{document.split}\0{len(content)}\0"
            hashed.update(head.encode("utf-8", "surrogateescape"))
            hashed.update(content)
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a record keeps: source, sizes, digest and the Python whose text it may be."""
        return {
            "source": self.source,
            "documents": {name: len(self.split(name)) for name in SPLITS},
            "bytes": {name: sum(len(d.text.encode()) for d in self.split(name)) for name in SPLITS},
            "skipped_files": self.n_skipped,
            "documents_beyond_budget": self.n_beyond_budget,
            "budget_bytes": self.budget_bytes,
            "digest": self.digest,
            "python": platform.python_version(),
        }


def split_of(name: str) -> str:
    """The split of a document, from its name (a relative path with forward slashes).

    >>> split_of("json/decoder.py")
    'test'
    """
    u = _uniform("split", name)
    if u < TEST_SHARE:
        return "test"
    return "validation" if u < TEST_SHARE + VALIDATION_SHARE else "train"


def load_corpus(source: str = STDLIB, *, budget_bytes: int | None = None) -> Corpus:
    """Reads a corpus.

    Args:
        source: "stdlib" for the sources of the running Python (tests left out) and the topics of
            its documentation; otherwise the path of a text file or folder. A single file is cut
            at line ends into parts of about 8 KiB, and each part is a document. In a folder each
            file is one, and hidden files and folders are left out.
        budget_bytes: use at most so much text. Documents are taken in the order of a hash of their
            names until the budget is full. None means everything of a path, 4 MB of "stdlib".

    A single file must be UTF-8. In a folder, files that are not (images, archives) are skipped and
    counted: a folder of text often holds some.

    Raises:
        InputError: nothing there, not readable, not UTF-8, or too little for three splits.
    """
    if budget_bytes is not None and (isinstance(budget_bytes, bool) or budget_bytes < 1):
        raise InputError(f"budget_bytes: value is {budget_bytes!r}; allowed is at least 1 byte")
    if source == STDLIB:
        budget_bytes = budget_bytes or STDLIB_BUDGET_BYTES
        documents, n_skipped = _read_all(_stdlib_files())
        documents += _topics()
    else:
        path = Path(source).expanduser()
        if path.is_dir():
            documents, n_skipped = _read_all(_folder_files(path))
        else:
            documents, n_skipped = _parts(path), 0
    documents = [d for d in documents if d.text.strip()]
    kept = _within(documents, budget_bytes)
    corpus = Corpus(source, tuple(kept), n_skipped, len(documents) - len(kept), budget_bytes)
    _check(corpus)
    return corpus


def _uniform(salt: str, name: str) -> float:
    """A number in [0, 1) from a name: the same on every machine and in every process."""
    hashed = hashlib.blake2b(
        name.encode("utf-8", "surrogateescape"), digest_size=8, person=salt.encode()
    )
    return int.from_bytes(hashed.digest(), "big") / 2**64


def _stdlib_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for name, path in _folder_files(root, ".py", _STDLIB_LEFT_OUT):
        # The topics come as documents of their own; the build's settings name this machine's paths.
        generated = name == "pydoc_data/topics.py" or path.name.startswith("_sysconfigdata")
        if not generated:
            yield name, path


def _topics() -> list[Document]:
    from pydoc_data.topics import topics

    return [Document(f"pydoc_data/topics/{n}.txt", text) for n, text in sorted(topics.items())]


def _folder_files(
    root: Path, suffix: str = "", left_out: Collection[str] = ()
) -> Iterator[tuple[str, Path]]:
    """(relative name, path) of every file that is not hidden, in order of the names."""
    found = []
    for folder, folders, names in os.walk(root):
        # What is left out is not walked: beside the library lies all that was ever installed.
        folders[:] = [one for one in folders if not one.startswith(".") and one not in left_out]
        for name in names:
            path = Path(folder, name)
            if name.endswith(suffix) and not name.startswith(".") and path.is_file():
                found.append((path.relative_to(root).as_posix(), path))
    yield from sorted(found)


def _read_all(files: Iterable[tuple[str, Path]]) -> tuple[list[Document], int]:
    documents = []
    n_skipped = 0
    for name, path in files:
        try:
            documents.append(Document(name, _read(path)))
        except UnicodeDecodeError:
            n_skipped += 1
    return documents, n_skipped


def _read(path: Path) -> str:
    try:
        content = read_bytes(path, limit_bytes=LARGEST_BYTES, unpack=False)
    except InputError as error:
        raise InputError(f"text {error}") from None
    # No text holds a zero byte, but UTF-8 allows one.
    if b"\0" in content:
        raise UnicodeDecodeError(
            "utf-8", content, content.index(b"\0"), content.index(b"\0") + 1, "zero byte"
        )
    return content.decode("utf-8")


def _parts(path: Path) -> list[Document]:
    """A single file, cut at line ends; a line longer than a part stays whole."""
    try:
        text = _read(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {path}: not UTF-8 at byte {error.start} ({error.reason}); allowed is UTF-8 text"
        ) from None
    parts: list[list[str]] = [[]]
    size = 0
    for line in text.splitlines(keepends=True):
        if size >= PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line.encode())
    return [Document(f"{path.name}#{i:06d}", "".join(lines)) for i, lines in enumerate(parts)]


def _within(documents: list[Document], budget_bytes: int | None) -> list[Document]:
    if budget_bytes is None:
        return documents
    kept = []
    used = 0
    for document in sorted(documents, key=lambda d: (_uniform("budget", d.name), d.name)):
        size = len(document.text.encode())
        if used + size <= budget_bytes:
            kept.append(document)
            used += size
    return sorted(kept, key=lambda d: d.name)


def _check(corpus: Corpus) -> None:
    if not corpus.documents:
        budget = f" within {corpus.budget_bytes} bytes" if corpus.n_beyond_budget else ""
        raise InputError(
            f"corpus {corpus.source}: no text{budget} ({corpus.n_skipped} files are not UTF-8); "
            "allowed is 'stdlib' or a file or folder with UTF-8 text"
        )
    for name in SPLITS:
        if not corpus.split(name):
            raise InputError(
                f"corpus {corpus.source}: {len(corpus.documents)} documents, none of them falls to "
                f"{name}; allowed is a corpus with more files, or one file of more than "
                f"{30 * PART_BYTES // 1024} KiB"
            )
