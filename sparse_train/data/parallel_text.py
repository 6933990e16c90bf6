"""Sentences with their translations: TSV, aligned files, archives of them, gettext catalogues."""

from __future__ import annotations

import hashlib
import os
import re
import site
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from sparse_train.data.gettext_catalogue import Pair, read_catalogue
from sparse_train.data.safe_files import decoded, read_member, read_text, zip_members
from sparse_train.data.text import SPLITS, split_of

CATALOGUES = "catalogues"
_CODE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z]+)?(@[a-z]+)?")
_SPACES = re.compile(r"\s+")
_NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class ParallelText:
    """Pairs in order of their source text, no source text twice.

    Attributes:
        source: what was read: "catalogues" or a path.
        languages: (from, to).
        pairs: stripped, with single spaces; at least one in each split.
        n_read: pairs before empty, untranslated and repeated ones were left out.
        n_skipped: broken files among the machine's own catalogues; they are left out.
    """

    source: str
    languages: tuple[str, str]
    pairs: tuple[Pair, ...]
    n_read: int
    n_skipped: int = 0

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of "train", "validation" or "test".

        Which one is decided by the words of the source text: texts that differ in case, numbers'
        signs or punctuation alone are in the same split.
        """
        if name not in SPLITS:
            raise InputError(f"split: value is {name!r}; allowed: {', '.join(SPLITS)}")
        return self._by_split[name]

    @cached_property
    def _by_split(self) -> dict[str, tuple[Pair, ...]]:
        found: dict[str, list[Pair]] = {name: [] for name in SPLITS}
        for pair in self.pairs:
            found[_split(pair[0])].append(pair)
        return {name: tuple(pairs) for name, pairs in found.items()}

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of all pairs; 32 hexadecimal digits."""
        hashed = hashlib.blake2b(digest_size=16)
        for pair in self.pairs:
            for text in pair:
                hashed.update(f"{len(text)}\0{text}".encode())
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Source, languages, sizes and digest, for a run's record."""
        return {
            "source": self.source,
            "languages": list(self.languages),
            "pairs": {name: len(self.split(name)) for name in SPLITS},
            "pairs_left_out": self.n_read - len(self.pairs),
            "files_skipped": self.n_skipped,
            "digest": self.digest,
        }


def load_parallel(
    source: str, languages: tuple[str, str], *, max_pairs: int | None = None
) -> ParallelText:
    """Reads parallel text.

    Args:
        source: one of
            "catalogues": all gettext catalogues of this machine (messages are in English);
            a folder: the catalogues in it (`de/LC_MESSAGES/*.mo`, `de.po`, `*.de.po`, …), or,
            where it has none, the aligned files `*.en` and `*.de`;
            a catalogue, .po or .mo;
            a table, .tsv or .txt, also .gz: `text, text`, ManyThings' `text, text, attribution`,
            or Tatoeba's `number, text, number, text`, apart by tabulators;
            an archive .zip as OPUS has them, with one pair of aligned files;
            `name` where `name.en` and `name.de` are aligned files, also .gz; or both names with a
            comma between them.
        languages: (from, to), codes as in the files' names, such as ("en", "de").
        max_pairs: use at most so many, the first by a hash of their source text.

    Raises:
        InputError: nothing there (says what was wanted, where it was looked for, how to get it),
            truncated, wrongly encoded, not aligned, or too little for three splits.
    """
    for code in languages:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise InputError(f"languages: {code!r} is not a code; allowed are such as en, pt_BR")
    if languages[0] == languages[1]:
        raise InputError(f"languages: both are {languages[0]!r}; allowed are two")
    n_skipped = 0
    if source == CATALOGUES:
        raw, n_skipped = _machine(languages)
    else:
        raw = list(_read(source, languages))
    pairs = _clean(raw)
    if max_pairs is not None and len(pairs) > max_pairs:
        chosen = sorted(pairs, key=lambda pair: hashlib.blake2b(pair[0].encode()).digest())
        pairs = sorted(chosen[:max_pairs])
    text = ParallelText(source, languages, tuple(pairs), len(raw), n_skipped)
    for name in SPLITS:
        if not text.split(name):
            raise InputError(
                f"{source}: {len(pairs)} usable pairs of {languages[0]} and {languages[1]}, none "
                f"of them falls to {name}; allowed is a text of some hundred pairs"
            )
    return text


def catalogue_folders() -> list[Path]:
    """Where gettext catalogues lie on this machine: those of programs and of Python packages."""
    roots = [Path(sys.prefix) / "share/locale", Path(sys.base_prefix) / "share/locale"]
    roots += [Path(p) for p in ("/usr/share/locale", "/usr/local/share/locale",
                                "/usr/share/locale-langpack")]  # fmt: skip
    roots += [Path(p) for p in site.getsitepackages()]
    seen: dict[Path, None] = {}
    for root in roots:
        if root.is_dir():
            seen.setdefault(root.resolve(), None)
    return list(seen)


def _read(source: str, languages: tuple[str, str]) -> Iterable[Pair]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, languages)
    if path.is_file():
        kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if kind in (".po", ".mo"):
            return _oriented(read_catalogue(path), languages)
        if kind == ".zip":
            return _archive(path, languages)
        return _table(read_text(path), path)
    return _aligned(source, languages)


def _machine(languages: tuple[str, str]) -> tuple[list[Pair], int]:
    """Pairs of all catalogues, and how many of these are broken: not the user's own files."""
    code = _translated(languages)
    roots = catalogue_folders()
    files = [f for root in roots for f in _catalogues(root, code)]
    if not files:
        raise InputError(
            f"catalogues: no gettext catalogue of {code!r} (*/{code}/LC_MESSAGES/*.mo) below "
            f"{', '.join(map(str, roots)) or 'any folder'}; install some (Debian: apt-get install "
            "--reinstall coreutils git, with locales not excluded; or pip install django), name "
            "another language, or give a path to parallel text"
        )
    pairs: list[Pair] = []
    n_skipped = 0
    for file in files:
        try:
            pairs += _oriented(read_catalogue(file), languages)
        except InputError:
            n_skipped += 1
    return pairs, n_skipped


def _folder(folder: Path, languages: tuple[str, str]) -> Iterable[Pair]:
    code = languages[1] if languages[0].startswith("en") else languages[0]
    files = _catalogues(folder, code)
    if files:
        return _all_of(files, languages)
    sides = [
        sorted(p for p in folder.iterdir() if p.name.endswith((f".{c}", f".{c}.gz")))
        for c in languages
    ]
    if [len(side) for side in sides] == [1, 1]:
        return _lines(sides[0][0], sides[1][0])
    raise InputError(
        f"{folder}: no catalogue of {code!r} and no pair of files *.{languages[0]} and "
        f"*.{languages[1]} (there are {len(sides[0])} and {len(sides[1])}); allowed is a folder "
        "with catalogues or with one such pair"
    )


def _catalogues(root: Path, code: str) -> list[Path]:
    found = list(root.glob(f"{code}/LC_MESSAGES/*.[mp]o"))
    found += root.glob(f"**/locale/{code}/LC_MESSAGES/*.[mp]o")
    found += [p for p in root.glob("*.[mp]o") if p.stem == code or p.stem.endswith(f".{code}")]
    # A catalogue and what it was compiled to have the same pairs; links would be read twice.
    return sorted({p.resolve() for p in found})


def _all_of(files: Sequence[Path], languages: tuple[str, str]) -> list[Pair]:
    return [pair for file in files for pair in _oriented(read_catalogue(file), languages)]


def _translated(languages: tuple[str, str]) -> str:
    """The language of the catalogues: the other one is English, which messages are in."""
    if "en" not in languages:
        raise InputError(
            f"languages: {languages[0]} and {languages[1]}; gettext messages are in English, so "
            "that one must be en; or give a path to parallel text"
        )
    return languages[1] if languages[0] == "en" else languages[0]


def _oriented(pairs: list[Pair], languages: tuple[str, str]) -> list[Pair]:
    return pairs if _translated(languages) == languages[1] else [(b, a) for a, b in pairs]


def _table(text: str, path: Path) -> Iterable[Pair]:
    columns, tatoeba = 0, False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line:
            continue
        cells = line.split("\t")
        if not columns:
            columns = len(cells)
            tatoeba = columns >= 4 and cells[0].isdecimal() and cells[2].isdecimal()
        if len(cells) != columns or columns < 2:
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns"
                + (f", the first has {columns}" if columns >= 2 else "")
                + "; allowed are two or more, apart by tabulators, in all lines alike"
            )
        yield (cells[1], cells[3]) if tatoeba else (cells[0], cells[1])


def _archive(path: Path, languages: tuple[str, str]) -> list[Pair]:
    names = zip_members(path)
    sides = [[n for n in names if n.endswith(f".{code}")] for code in languages]
    if [len(side) for side in sides] != [1, 1]:
        raise InputError(
            f"{path}: holds {len(sides[0])} files *.{languages[0]} and {len(sides[1])} files "
            f"*.{languages[1]}; allowed is one of each"
        )
    texts = [decoded(read_member(path, side[0]), f"{path}: {side[0]}") for side in sides]
    return _zipped(texts[0], texts[1], f"{path}: {sides[0][0]}", sides[1][0])


def _aligned(source: str, languages: tuple[str, str]) -> list[Pair]:
    first, comma, second = source.partition(",")
    wanted = [[first], [second]] if comma else [
        [f"{source}.{code}", f"{source}.{code}.gz"] for code in languages
    ]  # fmt: skip
    found = [
        next((p for p in (Path(n.strip()).expanduser() for n in names) if p.is_file()), None)
        for names in wanted
    ]
    if found[0] is None or found[1] is None:
        missing = wanted[0] if found[0] is None else wanted[1]
        raise InputError(
            f"parallel text {source}: no file {' or '.join(missing)} in {os.getcwd()}; allowed is "  # noqa: PTH109
            "'catalogues', a .tsv, .po, .mo or .zip file, a folder, or the common name of two "
            "aligned files; OPUS (opus.nlpl.eu), WMT and Tatoeba offer such files"
        )
    return _lines(found[0], found[1])


def _lines(first: Path, second: Path) -> list[Pair]:
    return _zipped(read_text(first), read_text(second), str(first), str(second))


def _zipped(one: str, two: str, first: str, second: str) -> list[Pair]:
    # Only line feeds end a line: other separators of Unicode occur within sentences.
    sides = [text.removesuffix("\n").split("\n") for text in (one, two)]
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{first} has {len(sides[0])} lines, {second} has {len(sides[1])}; allowed are aligned "
            "files, with as many lines"
        )
    return list(zip(*sides, strict=True))


def _clean(raw: Iterable[Pair]) -> list[Pair]:
    """Without empty, untranslated and repeated ones; of a source text the first translation."""
    found: dict[str, str] = {}
    for pair in raw:
        one, two = (_SPACES.sub(" ", text).strip() for text in pair)
        if one and two and one != two:
            found.setdefault(one, two)
    return sorted(found.items())


def _split(text: str) -> str:
    words = _NOT_WORDS.sub(" ", text).strip().lower()
    return split_of(words or text)
