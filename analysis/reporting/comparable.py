"""Which runs may stand beside each other: the same task on the same data, by the same metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparse_train.record import TrainingRecord

# What two runs must share, in words.
_NAMES = ("task", "data", "vocabulary", "what is evaluated")


def split(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The runs that can be compared with the first, and a sentence on each that cannot.

    Raises:
        InputError: a folder that is no run's.
    """
    kept: list[Path] = []
    left_out: list[str] = []
    first: tuple[Any, ...] | None = None
    for folder in folders:
        own = _key(TrainingRecord.load(folder))
        first = own if first is None else first
        odd = [name for name, a, b in zip(_NAMES, first, own, strict=True) if a != b]
        if not odd:
            kept.append(folder)
            continue
        what = " and ".join(odd)
        left_out.append(
            f"Left out: {folder}: its {what} is not that of {folders[0]}, so that their losses "
            "cannot be compared."
        )
    return kept, left_out


def _key(record: TrainingRecord) -> tuple[Any, ...]:
    vocabulary = record.task.get("vocabulary")
    evaluated = sorted(record.measured["metric"].unique().to_list()) if len(record.measured) else []
    return record.config.task, record.task.get("digest"), vocabulary, evaluated
