"""Result pages and the tables beside them: x.md must be, to the letter, what x.json gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hwsim import InputError

# Kind of table → the module that reads it, loaded when there is one: agents need an extra.
_READERS = {
    None: "analysis.comparing.stored",
    "agent compare": "analysis.agents.stored",
    "agent dsrl": "analysis.agents.dsrl_table",
    "agent schedules": "analysis.agents.schedules_stored",
    "measure cpu": "analysis.measuring.page",
    "plan": "analysis.planning.stored",
}
_VERSION = 1


class StoredResult(Protocol):
    """A table with all that its page says."""

    @property
    def page(self) -> str:
        """The page as Markdown."""
        ...

    def content(self) -> dict[str, Any]:
        """As JSON takes it, but for numbers that are not finite."""
        ...


def beside(page: Path) -> Path:
    """Where the table of a page lies."""
    return page.with_suffix(".json")


def write(stored: StoredResult, page: Path) -> list[Path]:
    """Writes the page, and its table beside it; their paths."""
    from analysis.reporting import report

    return [report.write(stored.page, page), report.write(dumps(stored), beside(page))]


def dumps(stored: StoredResult) -> str:
    """As text; equal tables give equal texts."""
    plain = _plain({"version": _VERSION, **stored.content()})
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """NaN and infinity have no place in JSON: they are written as strings."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"float:{value}"
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and value.startswith("float:"):
        return float(value.removeprefix("float:"))
    return value


def load(path: Path) -> StoredResult:
    """Reads a stored table of any kind.

    Raises:
        InputError: it is not there, or not one.
    """
    try:
        content = _numbers(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"table {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"table {path}: no JSON ({error})") from None
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise InputError(f"table {path}: not a table of nettime")
    try:
        return import_module(_READERS[content.get("kind")]).loaded(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"table {path}: {type(error).__name__} at {error}") from None


def disagreements(folder: Path) -> tuple[list[str], list[str]]:
    """(what is wrong, which pages have no table) among the pages of a folder.

    A page is wrong if it is not, to the letter, what its table gives.

    Raises:
        InputError: no page there.
    """
    pages = sorted(folder.glob("*.md"))
    if not pages:
        raise InputError(f"results {folder}: no page there")
    wrong, without = [], []
    for page in pages:
        if not beside(page).is_file():
            without.append(page.name)
            continue
        wanted, found = load(beside(page)).page, page.read_text(encoding="utf-8")
        if wanted != found:
            lines = zip(wanted.splitlines(), found.splitlines(), strict=False)
            number = next((i for i, (a, b) in enumerate(lines, 1) if a != b), "the end")
            wrong.append(f"{page.name}: line {number} is not what {beside(page).name} gives")
    pages_of = {page.stem for page in pages}
    wrong += [f"{table.name}: has no page" for table in sorted(folder.glob("*.json"))
              if table.stem not in pages_of]  # fmt: skip
    return wrong, without
