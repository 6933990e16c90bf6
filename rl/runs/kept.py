"""Dense runs kept on disk, so that they are trained once per machine and not once per process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import hwsim
import sparse_train
from hwsim import InputError
from hwsim.files import replacing
from rl.runs.problems import Problem
from sparse_train import tensor_files
from sparse_train.data.vocabulary import cache_folder

MOST_BYTES = 2 << 30  # Of the folder; those used longest ago go first.


def once(problem: Problem, first: int, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The chunk of dense runs whose first seed is `first`: read, or trained and kept.

    Processes that ask at the same time wait for the one that trains. Where the cache cannot be
    written, the chunk is trained here.

    Args:
        train: makes what is kept: tensors, numbers, strings, in dicts and lists.
    """
    path = cache_folder() / "dense" / f"{_digest(problem)}-{first}.pt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError:
        return train()
    try:
        found = _read(path)
        if found is None:
            found = train()
            _write(path, found)
        return found
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Any] | None:
    """What is kept there; None if nothing is, or no whole file."""
    try:
        found = tensor_files.read(path, str(path))
        path.touch()
    except (InputError, OSError):
        return None
    return found if {"losses", "accuracies", "taken"} <= found.keys() else None


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        with replacing(path) as part:
            tensor_files.write(content, part)
        files = sorted(path.parent.glob("*.pt"), key=lambda f: f.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > MOST_BYTES and file != path:
                file.unlink(missing_ok=True)
                file.with_suffix(".lock").unlink(missing_ok=True)
    except (InputError, OSError):
        return  # A full disk or another process that tidies: the run itself is there.


@functools.cache
def _digest(problem: Problem) -> str:
    """Of all that decides a dense run: network, settings, data, our code, torch."""
    own = dataclasses.asdict(problem.setting)
    content = [
        problem.network, own, problem.data.digest, _code(), torch.__version__,
        torch.get_num_threads() > 1,
    ]  # fmt: skip
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def _code() -> str:
    """Of the sources that train: a change of them makes other runs."""
    hashed = hashlib.blake2b(digest_size=16)
    folders = [Path(str(p.__file__)).parent for p in (sparse_train, hwsim)]
    for folder in (*folders, Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            hashed.update(file.read_bytes())
    return hashed.hexdigest()
