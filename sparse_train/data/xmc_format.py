"""The text format of the extreme classification repository, and its data in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hwsim.errors import InputError
from sparse_train.data.safe_files import decoded, read_member, read_text, zip_members
from sparse_train.data.text import SPLITS, split_of

_MOST = 50_000_000  # examples, features or labels that a header may claim


@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix row by row: row i has places[starts[i] : starts[i + 1]].

    Attributes:
        starts: int64 (rows + 1,).
        places: int32 (nnz,).
        values: float32 (nnz,), all 1 for labels.
    """

    starts: np.ndarray
    places: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, places: Sequence[np.ndarray], values: Sequence[np.ndarray] | None = None) -> Rows:
        """Rows from their places and values; values of 1 by default."""
        starts = np.zeros(len(places) + 1, np.int64)
        np.cumsum([len(p) for p in places], out=starts[1:])
        joined = np.concatenate([*places, np.empty(0)]).astype(np.int32)
        if values is None:
            return cls(starts, joined, np.ones(len(joined), np.float32))
        return cls(starts, joined, np.concatenate([*values, np.empty(0)]).astype(np.float32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """(rows,) entries of each."""
        return np.diff(self.starts)

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(places, values) of a row."""
        part = slice(self.starts[i], self.starts[i + 1])
        return self.places[part], self.values[part]

    def padded(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, width) places int64, −1 where a row is shorter, and values, 0 there.

        Of a longer row the largest values are kept.
        """
        places = np.full((len(rows), width), -1, np.int64)
        values = np.zeros((len(rows), width), np.float32)
        for at, i in enumerate(rows):
            p, v = self.row(int(i))
            if len(p) > width:
                best = np.sort(np.argsort(-v, kind="stable")[:width])
                p, v = p[best], v[best]
            places[at, : len(p)] = p
            values[at, : len(p)] = v
        return places, values


@dataclass(frozen=True, eq=False)
class XmcData:
    """Examples with many possible labels.

    Attributes:
        name: where they come from.
        n_features, n_outputs: numbers of both that there may be.
        features, labels: of all examples.
        splits: "train", "validation", "test" → numbers of examples, none in two.
    """

    name: str
    n_features: int
    n_outputs: int
    features: Rows
    labels: Rows
    splits: dict[str, np.ndarray] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of all arrays; 32 hexadecimal digits."""
        hashed = hashlib.blake2b(f"{self.n_features} {self.n_outputs}".encode(), digest_size=16)
        for rows in (self.features, self.labels):
            for array in (rows.starts, rows.places, rows.values):
                hashed.update(np.ascontiguousarray(array).data)
        for name in SPLITS:
            hashed.update(np.ascontiguousarray(self.splits[name]).data)
        return hashed.hexdigest()


def load_xmc(path: Path) -> XmcData:
    """Reads a data set of the repository.

    Args:
        path: a file (.txt, .txt.gz), which is split 80 : 10 : 10 by a hash of each example's
            features; or a folder or a .zip with `train.txt` and `test.txt` (or names that end so),
            of whose training part a tenth becomes validation in the same way.

    Raises:
        InputError: nothing there, not of the format, truncated, or a split without examples.
    """
    path = path.expanduser()
    if path.is_dir():
        return _parts(sorted(p.name for p in path.iterdir()), path, _from_folder)
    if not path.exists():
        raise InputError(
            f"data {path}: no such file or folder; allowed is a data set of the extreme "
            "classification repository (manikvarma.org/downloads/XC): its .zip as downloaded, "
            "the folder with its train.txt and test.txt, or one such file; or 'stdlib', 'planted'"
        )
    if path.suffix == ".zip":
        return _parts(zip_members(path), path, _from_zip)
    examples = parse(read_text(path), str(path))
    n = len(examples.labels)
    parts = np.array([split_of(key) for key in _keys(examples)])
    return _checked(examples, {name: np.flatnonzero(parts == name) for name in SPLITS}, n)


def parse(text: str, name: str) -> XmcData:
    """One file: "examples features labels", then one line each: `1,5 0:0.3 17:1`; no splits.

    Raises:
        InputError: what is wrong, with its line.
    """
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    try:
        n, n_features, n_outputs = (int(word) for word in lines[0].split())
    except (ValueError, IndexError):
        raise InputError(
            f"{name}: line 1 is {lines[0][:40] if lines else ''!r}; allowed are three numbers: "
            "examples, features, labels"
        ) from None
    if not all(0 < size <= _MOST for size in (n, n_features, n_outputs)):
        raise InputError(
            f"{name}: line 1 says {n} examples, {n_features} features, {n_outputs} labels; "
            f"allowed are 1 to {_MOST} of each"
        )
    if len(lines) - 1 != n:
        raise InputError(
            f"{name}: has {len(lines) - 1} examples, its first line says {n}; is it truncated?"
        )
    places, values, labels = [], [], []
    for number, line in enumerate(lines[1:], 2):
        of_line = _line(line.rstrip("\r"), f"{name}: line {number}", n_features, n_outputs)
        for kept, found in zip((labels, places, values), of_line, strict=True):
            kept.append(found)
    return XmcData(name, n_features, n_outputs, Rows.of(places, values), Rows.of(labels), {})


def write_xmc(path: Path, data: XmcData, examples: Iterable[int]) -> None:
    """Writes some examples in the format of the repository."""
    chosen = list(examples)
    lines = [f"{len(chosen)} {data.n_features} {data.n_outputs}"]
    for i in chosen:
        labels = ",".join(str(p) for p in data.labels.row(i)[0])
        features = (f"{p}:{v:.9g}" for p, v in zip(*data.features.row(i), strict=True))
        lines.append(" ".join([labels, *features]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(line: str, where: str, n_features: int, n_outputs: int) -> tuple[np.ndarray, ...]:
    """(labels, features, values), each feature once."""
    first, _, rest = line.partition(" ")
    if ":" in first:  # without labels, and without the space that stands for them
        first, rest = "", line
    try:
        labels = np.array(first.split(",") if first else [], dtype=np.int64)
        words = rest.split()
        if any(word.count(":") != 1 for word in words):
            raise ValueError
        numbers = np.array(rest.replace(":", " ").split(), dtype=np.float64)
    except (ValueError, OverflowError):
        raise InputError(
            f"{where}: {line[:40]!r}; allowed is `label,label feature:value feature:value …`"
        ) from None
    places, values = numbers[0::2], numbers[1::2]
    for what, found, most in (("label", labels, n_outputs), ("feature", places, n_features)):
        if len(found) and not (found.min() >= 0 and found.max() < most):
            raise InputError(f"{where}: a {what} is outside 0 to {most - 1}")
        if len(np.unique(found)) < len(found) or (found != np.floor(found)).any():
            raise InputError(f"{where}: a {what} is there twice, or no whole number")
    if not np.isfinite(values).all():
        raise InputError(f"{where}: a value is not finite")
    return labels, places, values


def _from_folder(path: Path, name: str) -> str:
    return read_text(path / name)


def _from_zip(path: Path, name: str) -> str:
    return decoded(read_member(path, name), f"{path}: {name}")


def _parts(names: Sequence[str], path: Path, read: Callable[[Path, str], str]) -> XmcData:
    wanted = {}
    for part in ("train", "test"):
        fit = [n for n in names if n.endswith((f"{part}.txt", f"{part}.txt.gz"))]
        if len(fit) != 1:
            raise InputError(
                f"{path}: holds {len(fit)} files *{part}.txt; allowed is one (and one "
                f"*{'test' if part == 'train' else 'train'}.txt)"
            )
        wanted[part] = parse(read(path, fit[0]), f"{path}: {fit[0]}")
    train, test = wanted["train"], wanted["test"]
    for what in ("n_features", "n_outputs"):
        if getattr(train, what) != getattr(test, what):
            raise InputError(
                f"{path}: {what} is {getattr(train, what)} in training and {getattr(test, what)} "
                "in test; allowed is the same"
            )
    n = len(train.labels)
    held_out = np.array([split_of(key) == "validation" for key in _keys(train)])
    splits = {
        "train": np.flatnonzero(~held_out),
        "validation": np.flatnonzero(held_out),
        "test": np.arange(n, n + len(test.labels)),
    }
    joined = XmcData(
        str(path), train.n_features, train.n_outputs,
        _joined(train.features, test.features), _joined(train.labels, test.labels), splits,
    )  # fmt: skip
    return _checked(joined, splits, n + len(test.labels))


def _joined(one: Rows, two: Rows) -> Rows:
    return Rows(
        np.concatenate([one.starts, one.starts[-1] + two.starts[1:]]),
        np.concatenate([one.places, two.places]),
        np.concatenate([one.values, two.values]),
    )


def _keys(data: XmcData) -> list[str]:
    """What decides an example's split: its features, so that equal ones are together."""
    return [
        hashlib.blake2b(b"".join(a.tobytes() for a in data.features.row(i))).hexdigest()
        for i in range(len(data.features))
    ]


def _checked(data: XmcData, splits: dict[str, np.ndarray], n: int) -> XmcData:
    """Without examples that have no label or no feature: nothing can be learnt or asked of them."""
    useful = (data.labels.counts > 0) & (data.features.counts > 0)
    kept = {name: rows[useful[rows]] for name, rows in splits.items()}
    for name in SPLITS:
        if not len(kept[name]):
            raise InputError(
                f"{data.name}: {n} examples, none with labels and features falls to {name}; "
                "allowed is a data set of some hundred"
            )
    return XmcData(
        data.name, data.n_features, data.n_outputs, data.features, data.labels, kept
    )  # fmt: skip
