"""Reading measured steps: the form of `analysis/steps/record.py`, or a public set's own."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.steps.public import known_form
from analysis.steps.record import Step, step_of
from hwsim.errors import InputError


def read_steps(path: str | Path) -> list[Step]:
    """The steps of a file.

    Raises:
        InputError: unreadable, not JSON, an unknown key, a wrong value; file and row are named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"steps {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    try:
        rows = whole if whole is not None else [json.loads(x) for x in text.splitlines() if x]
    except ValueError as error:
        raise InputError(f"steps {path}: not JSON ({error})") from None
    if isinstance(rows, dict) and "rows" in rows:
        known = known_form(path.stem, rows)
        if known is not None:
            return known
        rows = rows["rows"]
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise InputError(f"steps {path}: is {type(rows).__name__}; allowed is a list of rows")
    return [step_of(path, i, row) for i, row in enumerate(rows, start=1)]
