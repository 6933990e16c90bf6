"""The one error that bad input raises."""

from __future__ import annotations

import difflib

_LONGEST = 1500  # characters of a message: a value in it may be of any length
_CONTROLS = {c: repr(chr(c))[1:-1] for c in (*range(32), *range(127, 160))} | {
    ord("\n"): " ", ord("\r"): " ", ord("\t"): " "
}  # fmt: skip


class InputError(ValueError):
    """An argument, file or specification is not usable.

    The message is one line: what it is about, the value given, what is allowed. The command line
    prints that line and exits with 2. Whatever the value was, it stays a line: what is no character
    to be seen is shown as its escape, and of a long message the middle is left out.

    >>> print(InputError("name: value is " + "9" * 5000 + "\\x1b; allowed is less"))
    ... # doctest: +ELLIPSIS
    name: value is 999... … ...999\\x1b; allowed is less
    """

    def __init__(self, message: object = "") -> None:
        text = str(message).translate(_CONTROLS)
        if len(text) > _LONGEST:
            text = f"{text[: 2 * _LONGEST // 3]} … {text[-_LONGEST // 3 :]}"
        super().__init__(text)


def unknown(kind: str, name: object, valid: tuple[str, ...] | list[str]) -> str:
    """One line for a name that is not known: the name, the nearest valid one, all valid ones."""
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (valid: {', '.join(valid)})"
