"""gettext catalogues as (message, translation) pairs: .mo and .po files.

Python's own reader compiles a catalogue's rule for plurals; here nothing of a file is executed.
"""

from __future__ import annotations

import codecs
import re
import struct
from pathlib import Path

from hwsim.errors import InputError
from sparse_train.data.safe_files import read_bytes

_MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
_LARGEST_BYTES = 64 << 20
_CHARSET = re.compile(r"charset=([\w.:+-]+)", re.IGNORECASE)
_KEYWORD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d+)\])?\s*(\".*)$")
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
Pair = tuple[str, str]


def read_catalogue(path: Path) -> list[Pair]:
    """The messages of a catalogue with their translations, in order; contexts are dropped.

    Of a message with a plural the singular and the translation's first form are taken. Messages
    without translation and those marked fuzzy (not yet checked by a translator) are left out, and
    so is the header.

    Raises:
        InputError: not readable, neither .mo nor .po, truncated, wrongly encoded or malformed.
    """
    content = read_bytes(path, limit_bytes=_LARGEST_BYTES)
    if content[:4] in _MAGIC:
        return _read_mo(content, path)
    if path.suffix == ".mo":
        raise InputError(f"{path}: no gettext .mo file: begins with {content[:4]!r}")
    return _read_po(content, path)


def _read_mo(content: bytes, path: Path) -> list[Pair]:
    """Source: GNU gettext manual, "The Format of GNU MO Files"."""
    order = _MAGIC[content[:4]]
    try:
        version, n, originals, translations = struct.unpack_from(order + "4I", content, 4)
        if version >> 16 > 1:
            raise InputError(f"{path}: .mo version {version >> 16}; allowed: 0 and 1")
        if n * 8 > len(content):
            raise InputError(f"{path}: truncated: has {len(content)} bytes, says {n} messages")
        tables = [struct.unpack_from(f"{order}{2 * n}I", content, at)
                  for at in (originals, translations)]  # fmt: skip
    except struct.error:
        raise InputError(f"{path}: truncated: has {len(content)} bytes") from None
    raw = []
    for i in range(n):
        both = []
        for table in tables:
            length, start = table[2 * i : 2 * i + 2]
            if start + length > len(content):
                raise InputError(
                    f"{path}: truncated: message {i} ends at byte {start + length}, the file at "
                    f"{len(content)}"
                )
            both.append(content[start : start + length])
        raw.append(both)
    header = next((text for key, text in raw if not key), b"")
    charset = _charset(header.decode("latin-1"), path)
    pairs = []
    for key, text in raw:
        if key:
            message, translation = (_decoded(b, charset, path) for b in (key, text))
            message = message.rpartition("\x04")[2].partition("\0")[0]
            pairs.append((message, translation.partition("\0")[0]))
    return [(a, b) for a, b in pairs if a and b]


def _read_po(content: bytes, path: Path) -> list[Pair]:
    """Source: GNU gettext manual, "The Format of PO Files"."""
    text = _decoded(content, _charset(content[:4096].decode("latin-1"), path), path)
    pairs: list[Pair] = []
    entry: dict[str, str] = {}
    field = ""
    fuzzy = next_fuzzy = False

    def close() -> None:
        message, translation = entry.get("msgid"), entry.get("msgstr", entry.get("msgstr[0]"))
        if message and translation and not fuzzy:
            pairs.append((message, translation))

    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            if line.startswith("#,") and "fuzzy" in line:
                next_fuzzy = True
            continue
        found = _KEYWORD.match(line)
        if found:
            keyword, index, rest = found.groups()
            if keyword == "msgctxt" or (keyword == "msgid" and field != "msgctxt"):
                close()
                entry, fuzzy, next_fuzzy = {}, next_fuzzy, False
            field = keyword if index is None else f"{keyword}[{index}]"
            if field in entry or (keyword == "msgstr" and "msgid" not in entry):
                raise InputError(f"{path}: line {number}: {field} out of place")
            entry[field] = _unquoted(rest, path, number)
        elif line.startswith('"') and field:
            entry[field] += _unquoted(line, path, number)
        else:
            raise InputError(f"{path}: line {number}: {line[:40]!r} is no part of a .po file")
    if entry and "msgid" in entry and not any(name.startswith("msgstr") for name in entry):
        raise InputError(f"{path}: truncated: the last message has no msgstr")
    close()
    return pairs


def _unquoted(text: str, path: Path, number: int) -> str:
    ends = len(text) >= 2 and text.endswith('"') and not _odd_backslashes(text[:-1])
    if not ends:
        raise InputError(f"{path}: line {number}: a string without its closing quote")
    return _ESCAPE.sub(_character, text[1:-1])


def _odd_backslashes(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _character(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _ESCAPED.get(code, code)


def _charset(header: str, path: Path) -> str:
    """Of the header; catalogues without one are UTF-8. Templates say CHARSET."""
    found = _CHARSET.search(header)
    if found is None or found[1] == "CHARSET":
        return "utf-8"
    try:
        codec = codecs.lookup(found[1])
    except LookupError:
        raise InputError(f"{path}: charset {found[1]!r} is not known") from None
    if not codec._is_text_encoding:
        raise InputError(f"{path}: charset {found[1]!r} is no encoding of text")
    return codec.name


def _decoded(content: bytes, charset: str, path: Path) -> str:
    try:
        text = content.decode(charset)
        text.encode("utf-8")  # half a pair of UTF-16, which some codecs let through
        return text
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not {charset} at byte {error.start} ({error.reason}), as its header says"
        ) from None
    except Exception as error:  # codecs fail in ways of their own
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not {charset} ({what}), as its header says") from None
