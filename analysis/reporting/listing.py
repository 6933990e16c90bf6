"""Run folders as one frame: settings, how far each came, what its masks and data are."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim import InputError

if TYPE_CHECKING:
    import polars as pl


def folders(pattern: str | Path | Sequence[str | Path]) -> list[Path]:
    """The run folders that patterns with * name, in their order, each once.

    Raises:
        InputError: a pattern names no run folder.
    """
    from sparse_train.runs.run_folder import CONFIG

    patterns = [pattern] if isinstance(pattern, str | Path) else list(pattern)
    found: list[Path] = []
    for one in patterns:
        named = map(Path, sorted(glob.glob(str(one))))  # noqa: PTH207  a pattern of any root
        runs = [path for path in named if (path / CONFIG).is_file()]
        if not runs:
            raise InputError(
                f"runs: {str(one)!r} names no run folder; allowed are folders that nettime train "
                'made, or a pattern such as "runs/*"'
            )
        found += runs
    return list(dict.fromkeys(found))


def runs(pattern: str | Path | Sequence[str | Path] = "runs/*") -> pl.DataFrame:
    """One row per run: `run`, `steps`, `loss`, `best_loss`, `wall_s`, figures, every setting.

    Settings have their names in `TrainConfig`; those that are no number or text are JSON. Figures
    are those of `TrainingRecord.figures`. `loss` is the last of the validation, `data` the task's
    digest.

    Raises:
        InputError: nothing matches, or a folder is damaged.
    """
    import polars as pl

    return pl.DataFrame([_row(folder) for folder in folders(pattern)], infer_schema_length=None)


def differences(table: pl.DataFrame) -> pl.DataFrame:
    """`run` and the settings in which runs differ; `run` alone where all are alike."""
    names = [n for n in _settings() if n in table.columns]
    return table.select("run", *[n for n in names if table[n].n_unique() > 1])


def _settings() -> list[str]:
    from sparse_train.runs.config import TrainConfig

    return [field.name for field in dataclasses.fields(TrainConfig)]


def _row(folder: Path) -> dict[str, Any]:
    from sparse_train.record import TrainingRecord

    record = TrainingRecord.load(folder)
    losses = record.evaluations["loss"].drop_nulls().drop_nans() if record.steps else None
    known = losses is not None and len(losses) > 0
    row: dict[str, Any] = {
        "run": str(folder),
        "steps_done": record.steps,
        "loss": float(losses[-1]) if known else None,
        "best_loss": float(losses.to_numpy().min()) if known else None,
        "wall_s": record.wall_s if record.steps else None,
        "data": str(record.task.get("digest", "")),
        "version": str(record.environment.get("nettime", record.environment.get("version", ""))),
    }
    for name, value in dataclasses.asdict(record.config).items():
        row[name] = value if isinstance(value, bool | int | float | str | None) else _json(value)
    for name, value in record.figures.items():
        row[name if name not in row else f"masks_{name}"] = value
    return row


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
