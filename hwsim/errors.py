"""The one error that bad input raises."""

from __future__ import annotations

import difflib


class InputError(ValueError):
    """An argument, file or specification is not usable.

    The message is one line: what it is about, the value given, what is allowed. The command line
    prints that line and exits with 2.
    """


def unknown(kind: str, name: object, valid: tuple[str, ...] | list[str]) -> str:
    """One line for a name that is not known: the name, the nearest valid one, all valid ones."""
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (valid: {', '.join(valid)})"
