"""A dictionary that forgets: what a device keeps must not grow with what it was asked."""

from __future__ import annotations

from typing import Any


class BoundedDict(dict):
    """Holds at most so many entries; the one that was put in first goes.

    >>> known = BoundedDict(2)
    >>> known["a"], known["b"], known["c"] = 1, 2, 3
    >>> list(known)
    ['b', 'c']
    """

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self.most:
            del self[next(iter(self))]

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundedDict, (self.most,), None, None, iter(self.items())


def prices() -> BoundedDict:
    """Room for what a device says of unmasked operations: more than any network's shapes."""
    return BoundedDict(4096)
