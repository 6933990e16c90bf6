"""What commands write to: tables on stdout, progress and errors on stderr, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Work shorter than this shows no bar: it would only flicker.
QUIET_S = 2.0
LINES_S = 10.0  # between two lines of a log


class Interrupted(Exception):
    """Ctrl-C, with the line that says how to go on."""


def print_anywhere() -> None:
    """Characters that the output's encoding lacks are printed as escapes; no locale is an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def shown(text: str) -> str:
    """Text with control characters made visible: names from files send a terminal no commands.

    >>> shown("a\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def stdout() -> Console:
    """Where answers go."""
    return _console()


def stderr() -> Console:
    """Where progress and errors go."""
    return _console(stderr=True)


def _console(**options: Any) -> Console:
    from rich.console import Console

    class Shown(Console):
        """Text is shown as it is, whoever wrote it."""

        def render_str(self, text: str, **more: Any) -> Any:
            return super().render_str(shown(text), **more)

    return Shown(highlight=False, emoji=False, markup=False, **options)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON has no number for becomes null."""
    print(json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False))


def jsonable(value: Any) -> Any:
    """`value` with numpy scalars, tuples, paths and non-finite numbers made plain."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


@contextmanager
def resumable(how_to_go_on: str) -> Iterator[None]:
    """Turns Ctrl-C into one line that says how the work can be taken up again."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(how_to_go_on) from None


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Progress on stderr once the work has taken over two seconds: a bar, or plain lines in a log.

    Yields `update(done, note="")`: units done so far, and a few words to stand behind the bar. A
    first unit that takes long is shown as well; of lines there is one in ten seconds.
    """
    shower = _bar(what, total) if sys.stderr.isatty() else _lines(what, total)
    with shower as (begin, show):
        timer = threading.Timer(QUIET_S, begin)
        timer.daemon = True
        timer.start()
        try:
            yield show
        finally:
            timer.cancel()
            timer.join()


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple[Callable[[], None], Callable[..., None]]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        Remaining(), TextColumn("{task.fields[note]}"), console=stderr(), transient=True,
    )  # fmt: skip
    task = bar.add_task(what, total=total, note="")

    def show(done: int, note: str = "") -> None:
        bar.update(task, completed=done, note=note)

    try:
        yield bar.start, show
    finally:
        bar.stop()


@contextmanager
def _lines(what: str, total: int) -> Iterator[tuple[Callable[[], None], Callable[..., None]]]:
    reached, note, last = 0, "", math.inf
    lock = threading.Lock()

    def tell() -> None:
        nonlocal last
        last = time.monotonic()
        behind = f" ({shown(note)})" if note else ""
        print(f"{shown(what)}: {reached} of {total}{behind}", file=sys.stderr, flush=True)

    def begin() -> None:
        with lock:
            tell()

    def show(done: int, words: str = "") -> None:
        nonlocal reached, note
        with lock:
            reached, note = done, words
            if time.monotonic() - last >= LINES_S:
                tell()

    yield begin, show
