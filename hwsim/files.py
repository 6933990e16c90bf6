"""Files that are there in full or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsim.errors import InputError

_SUFFIX = ".part"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name in the same folder; what is written there becomes `path` at the end.

    The content is on the disk before the name is (fsync, rename, fsync of the folder). The
    temporary name is hidden and of this process alone, so that writers that race do not meet: the
    last one to finish wins, each file is whole.

    Raises:
        InputError: the file cannot be written (no permission, disk full); `path` is as before.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        try:
            yield part
            _sync(part)
            part.replace(path)
            _sync(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with sorted keys, so that equal contents are equal files."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary file of a writer that was killed."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed writers left. Only for a folder that no other process writes to."""
    for path in folder.iterdir():
        if is_leftover(path):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
