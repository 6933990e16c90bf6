"""What every file of a run folder must contain, so that damage is told from a killed writer.

`manifest.json` names each file with the SHA-256 digests that it may have. Before a file is
replaced, the digest of its new content is put beside that of the old one; before it is deleted,
"absent" is. So whenever the process is killed, each file is one of those that the manifest allows,
and anything else is damage. Once a file is in place its other digests go, with the next write.

Files that the manifest does not name are not checked: folders of earlier versions have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from hwsim.files import replacing, write_json

MANIFEST = "manifest.json"
ABSENT = None
_ADVICE = (
    "restore it from a copy, or delete checkpoint.pt and train again from the start with the same "
    "settings, to the same bits"
)
Digests = dict[str, list[str | None]]


class Manifest:
    """The digests of one folder's files, as they are on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: Digests = read_manifest(folder)
        # Files whose content is known to be the last digest: written by this process.
        self._placed: set[str] = set()

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """As `hwsim.files.replacing`, with the new content's digest recorded before the name."""
        name = path.relative_to(self.folder).as_posix()
        with replacing(path) as part:
            yield part
            self._allow(name, digest_of(part))
        self._placed.add(name)

    def remove(self, paths: list[Path]) -> None:
        """Deletes files, all of them allowed to be absent before the first one is."""
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        if not names:
            return
        for name in names:
            if name in self.files:
                self.files[name].append(ABSENT)
        self._write()
        for path in paths:
            path.unlink(missing_ok=True)
        self._placed.update(names)

    def settle(self) -> None:
        """Leaves one digest for each file that has several."""
        if any(len(allowed) > 1 for allowed in self.files.values()):
            self._write()

    def _allow(self, name: str, digest: str) -> None:
        unknown = name not in self.files
        before = self.files.get(name, [ABSENT])
        if unknown and (self.folder / name).is_file():
            before = [digest_of(self.folder / name)]  # of an earlier version
        self._collapse()
        self.files[name] = [*self.files.get(name, before), digest]
        self._placed.discard(name)
        self._store()

    def _write(self) -> None:
        self._collapse()
        self._store()

    def _collapse(self) -> None:
        """Of several digests, the one that is true; files with none of them stay as they are."""
        for name, allowed in list(self.files.items()):
            if len(allowed) == 1:
                continue
            if name in self._placed:
                present = allowed[-1]
            else:
                path = self.folder / name
                present = digest_of(path) if path.is_file() else ABSENT
                if present not in allowed:
                    continue
            if present is ABSENT:
                del self.files[name]
            else:
                self.files[name] = [present]

    def _store(self) -> None:
        content = {"files": self.files, "digest": _digest_of_files(self.files)}
        write_json(self.folder / MANIFEST, content)


def read_manifest(folder: Path) -> Digests:
    """Name → digests that the file may have; empty where there is no manifest.

    Raises:
        InputError: the manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        content: Any = json.loads(path.read_bytes())
        files = content["files"]
        if content["digest"] == _digest_of_files(files):
            return {str(name): list(allowed) for name, allowed in files.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(
        f"{path}: damaged; restore it from a copy, or delete it to use the files unchecked"
    )


def read_checked(path: Path, folder: Path) -> bytes | None:
    """The content of a run's file; None if there is none and none must be there.

    Raises:
        InputError: it cannot be read, is missing, or is not what was written.
    """
    content: bytes | None = None

    def load() -> str | None:
        nonlocal content
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = None
            return ABSENT
        return hashlib.sha256(content).hexdigest()

    _check(path, folder, load)
    return content


def check_file(path: Path, folder: Path) -> bool:
    """Whether a run's file is there; as `read_checked`, for files too large to hold."""
    there = path.is_file()
    _check(path, folder, lambda: digest_of(path) if path.is_file() else ABSENT)
    return there


def is_lost(path: Path, folder: Path) -> bool:
    """Whether a run's file should be there and is not."""
    allowed = read_manifest(folder).get(path.relative_to(folder).as_posix(), [ABSENT])
    return ABSENT not in allowed and not path.is_file()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, folder: Path, load: Any) -> None:
    name = path.relative_to(folder).as_posix()
    before = None
    while True:
        # The file first: whoever trains in the folder meanwhile records a digest before the file.
        try:
            present = load()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        allowed = read_manifest(folder).get(name)
        if allowed is None or present in allowed:
            return
        if (present, allowed) == before:
            what = "missing" if present is ABSENT else "damaged: not the content that was written"
            raise InputError(f"{path}: {what}; {_ADVICE}")
        before = (present, allowed)


def _digest_of_files(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
