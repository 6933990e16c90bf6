"""Leaving the process without taking a CUDA build of torch apart."""

from __future__ import annotations

import atexit
import os
import sys


class Leaving:
    """Ends the process with an exit code, once all that Python does at its end is done.

    Unloading the libraries of a CUDA build of torch takes 128 MB more than any command did with
    them, and a second. A process that has such a build loaded ends without that; any other, and
    one that ends by an exception, as always.

    Made before anything else registers with `atexit`, so that its turn comes last.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._end)

    def by(self, code: int) -> None:
        """Leaves as `sys.exit` does."""
        self._code = code
        sys.exit(code)

    def _end(self) -> None:
        if self._code is None or not _is_cuda(sys.modules.get("torch")):
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # Python's own way to end knows what to say.
        os._exit(self._code)


def _is_cuda(torch: object) -> bool:
    return getattr(getattr(torch, "version", None), "cuda", None) is not None
