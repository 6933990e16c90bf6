"""What was judged on disk, so that a study that was stopped goes on where it stood."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from analysis.agents.judge import Judged, Played
from hwsim import InputError
from hwsim.files import replacing
from rl.evaluate import Episodes

T = TypeVar("T")
_FIELDS = tuple(field.name for field in dataclasses.fields(Episodes))


def kept_as(
    folder: Path, key: Mapping[str, Any], make: Callable[[], T], suffix: str,
    read: Callable[[Path], T], write: Callable[[T, Path], None],
) -> T:  # fmt: skip
    """What was made from `key` before, or a new one, which is then kept.

    Args:
        key: everything that it depends on, as JSON takes it, its `name` among it. A file of
            another key is never read.
        suffix: of the file.
        read, write: of a file, whole or not at all.
    """
    text = json.dumps(key, sort_keys=True)
    name = re.sub(r"\W", "-", str(key["name"]))
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{suffix}"
    if path.exists():
        return read(path)
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    write(made, path)
    return made


def kept(folder: Path, key: Mapping[str, Any], make: Callable[[], Judged]) -> Judged:
    """`kept_as`, of a judged contender."""
    return kept_as(folder, key, make, ".safetensors", load, save)


def save(contender: Judged, path: Path) -> None:
    """Writes a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors, about = {}, []
    for i, run in enumerate(contender.played):
        tensors |= {f"{i}.{f}": getattr(run.episodes, f).contiguous() for f in _FIELDS}
        about.append({"groups": run.groups, "cost": run.cost, "dense_s": run.dense_s})
    rest = {
        field.name: getattr(contender, field.name)
        for field in dataclasses.fields(contender)
        if field.name != "runs"
    }
    with replacing(path) as part:
        save_file(tensors, part, {"contender": json.dumps({**rest, "runs": about})})


def load(path: Path) -> Judged:
    """Raises an InputError if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            rest = json.loads((file.metadata() or {})["contender"])
            runs = tuple(
                Played(
                    Episodes(**{f: file.get_tensor(f"{i}.{f}") for f in _FIELDS}),
                    tuple(about["groups"]), about["cost"], tuple(about["dense_s"]),
                )
                for i, about in enumerate(rest.pop("runs"))
            )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); allowed is to remove it") from None
    rest["rates"] = tuple(rest["rates"])
    return Judged(runs=runs, **rest)
