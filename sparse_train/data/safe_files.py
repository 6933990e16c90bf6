"""Reading data files that strangers made: bounded, never executed, never written anywhere.

Nothing is unpacked to the disk. What a compressed file or an archive's member unpacks to is counted
while it is read, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import gzip
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from hwsim.errors import InputError

LARGEST_BYTES = 1 << 30
# A text shrinks to a fifth at best; real archives hold nothing that shrinks to a thousandth.
_LARGEST_RATIO = 1000
_PIECE_BYTES = 1 << 20


class Readable(Protocol):
    """An open binary file, unpacked or not."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""
        ...


def read_bytes(path: Path, *, limit_bytes: int = LARGEST_BYTES, unpack: bool = True) -> bytes:
    """A file's content; of `name.gz` what it unpacks to, if `unpack`.

    Raises:
        InputError: not there, not readable, truncated, or more than `limit_bytes`.
    """
    try:
        with opened_regular(path) as raw:
            if unpack and path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as file:
                    return _bounded(file, str(path), limit_bytes)
            return _bounded(raw, str(path), limit_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def opened_regular(path: Path) -> BinaryIO:
    """A file open for reading; a pipe or a device is refused without waiting for it.

    Raises:
        InputError: no regular file.
        OSError: not there, or not readable.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode) or not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or device"
        raise InputError(f"{path}: {what}; allowed is a regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, *, limit_bytes: int = LARGEST_BYTES) -> str:
    """A UTF-8 file's text, also of `name.gz`; a byte order mark is left out.

    Raises:
        InputError: as `read_bytes`, or not UTF-8.
    """
    return decoded(read_bytes(path, limit_bytes=limit_bytes), str(path))


def decoded(content: bytes, name: str) -> str:
    """UTF-8 as text.

    Raises:
        InputError: it is not UTF-8, or holds a zero byte, which no text does; `name` is said.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: not UTF-8 at byte {error.start} ({error.reason}); allowed is UTF-8 text"
        ) from None
    if "\0" in text:
        raise InputError(f"{name}: has a zero byte; allowed is UTF-8 text")
    return text


def zip_members(path: Path) -> list[str]:
    """Names of an archive's files, in order.

    Raises:
        InputError: not a zip archive, or a name that climbs out of the archive.
    """
    with _opened(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def read_member(path: Path, member: str, *, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """One file of a zip archive, unpacked in memory.

    Raises:
        InputError: not a zip archive, no such member, a broken or encrypted one, one that unpacks
            to more than `limit_bytes` or to a thousand times its size, or a name in the archive
            that climbs out of it.
    """
    where = f"{path}: {member}"
    with _opened(path) as archive:
        try:
            info = archive.getinfo(member)
        except KeyError:
            raise InputError(f"{path}: has no {member!r}") from None
        packed = max(info.compress_size, 1)
        if info.file_size > limit_bytes or info.file_size > _LARGEST_RATIO * packed + _PIECE_BYTES:
            raise InputError(
                f"{where}: {packed} bytes would unpack to {info.file_size}; allowed is at most "
                f"{limit_bytes}, and {_LARGEST_RATIO} times the packed size"
            )
        try:
            with archive.open(info) as file:
                return _bounded(file, where, limit_bytes)
        except InputError:
            raise
        # RuntimeError: an encrypted member. OSError, ValueError: a place before the file's begin.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
                OSError, ValueError) as error:  # fmt: skip
            raise InputError(f"{where}: cannot be unpacked ({error})") from None


class _opened:
    """A zip archive whose names were looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> zipfile.ZipFile:
        try:
            self._file = opened_regular(self._path)
            self._archive = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise InputError(f"{self._path}: not a whole zip archive ({error})") from None
        except OSError as error:
            raise InputError(f"{self._path}: {error.strerror or error}") from None
        for name in self._archive.namelist():
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in parts or name.startswith(("/", "\\")) or ":" in name.partition("/")[0]:
                self._archive.close()
                raise InputError(f"{self._path}: member {name!r} climbs out of the archive")
        return self._archive

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._file.close()


def _bounded(file: Readable, name: str, limit_bytes: int) -> bytes:
    pieces = []
    size = 0
    for piece in _pieces(file):
        size += len(piece)
        if size > limit_bytes:
            raise InputError(f"{name}: has more than {limit_bytes} bytes, the most that is read")
        pieces.append(piece)
    return b"".join(pieces)


def _pieces(file: Readable) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece
