"""A clock that stands while Numba compiles, so that no run's seconds hold those of compilation."""

from __future__ import annotations

import time
from typing import Any

from numba.core import event


class _Compiling(event.Listener):
    """Seconds in which functions were compiled, or read from where compiled ones are kept."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._begun = 0.0

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._begun = time.perf_counter()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._begun


_compiling = _Compiling()
event.register("numba:compile", _compiling)


def working_s() -> float:
    """Seconds of this process but those of compilation; only differences mean anything."""
    return time.perf_counter() - _compiling.seconds
