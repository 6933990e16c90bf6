"""Files that are there in full or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hwsim.errors import InputError

_SUFFIX = ".part"
# The temporary names under which this process writes at the moment.
_half_written: set[Path] = set()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name in the same folder; what is written there becomes `path` at the end.

    The content is on the disk before the name is (fsync, rename, fsync of the folder). The
    temporary name is hidden and of this process alone, so that writers that race do not meet: the
    last one to finish wins, each file is whole. Its permissions are those of any new file, whatever
    library wrote it.

    Raises:
        InputError: the file cannot be written (no permission, disk full, also where a library says
            so by an error of its own); `path` is as before.
    """
    if not path.name:
        raise InputError(f"{path}: cannot be written: it is a folder")
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_SUFFIX}")
    _half_written.add(part)
    try:
        try:
            mode = _made(part)
            try:
                yield part
            except (OSError, InputError):
                raise
            except Exception as error:
                _probe(part)
                if type(error).__name__ == "SafetensorError":  # writing, it says so of the disk
                    raise OSError(str(error)) from error
                raise
            if stat.S_IMODE(part.stat().st_mode) != mode:
                part.chmod(mode)
            _sync(part)
            part.replace(path)
            _sync(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
        _half_written.discard(part)


def take_back() -> None:
    """Removes what this process has half written: for one that is about to end where it stands."""
    for part in list(_half_written):
        with contextlib.suppress(OSError):
            part.unlink()


def _made(path: Path) -> int:
    """Makes an empty file; the permissions that this process gives to new files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _probe(path: Path) -> None:
    """An OSError if this file cannot grow: what a library hid behind an error of its own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        left = bytes(1 << 20)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Watched:
    """A file that remembers that writing to it failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        return self._told(lambda: self._file.write(data))

    def flush(self) -> None:
        self._told(self._file.flush)

    def _told(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except OSError as error:
            self.error = self.error or error
            raise


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Any]:
    """A file to write to, for a library that raises what it likes when writing fails.

    Raises:
        OSError: a write failed, whatever the library made of it.
    """
    with path.open("wb") as file:
        given = _Watched(file)
        try:
            yield given
        except Exception:
            if given.error is not None:
                raise given.error from None
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogatepass")  # names that are no UTF-8


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with sorted keys, so that equal contents are equal files."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """The text of a JSON file: equal contents are equal texts."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_json(content: str | bytes, label: str) -> Any:
    """What a JSON text says, however hostile it is.

    Raises:
        InputError: not valid JSON, a number too long to be one, or brackets nested too deep.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise InputError(f"{label}: not valid JSON (brackets nested too deep)") from None
    except ValueError as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{label}: not valid JSON ({first})") from None


LARGEST_BYTES = 64 << 20  # of a specification, a set of records, a configuration


def read_bytes(path: Path, label: str, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """The content of a file that anyone may have made.

    Raises:
        InputError: not there, not readable, no regular file (a pipe or a device may never end), or
            larger than `limit_bytes`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if stat.S_ISDIR(facts.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(f"{label}: is a pipe or device; allowed is a regular file")
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise InputError(f"{label}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{label}: {error}") from None
    if len(content) > limit_bytes:
        raise InputError(f"{label}: has more than {limit_bytes} bytes, the most that is read")
    return content


def read_text(path: Path, label: str, limit_bytes: int = LARGEST_BYTES) -> str:
    """As `read_bytes`, as UTF-8 text with its line ends made plain."""
    try:
        text = read_bytes(path, label, limit_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: not UTF-8 at byte {error.start} ({error.reason})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary file of a writer that was killed."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Deletes what killed writers left, of all files or of one.

    Only for a folder, or a file, that no other process writes to.
    """
    for path in folder.iterdir():
        if is_leftover(path) and path.name.startswith(f".{name}." if name else "."):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
