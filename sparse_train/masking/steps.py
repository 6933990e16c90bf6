"""Every optimizer step of the process, told to the sparsifiers that it concerns.

One pair of torch's global hooks: an optimizer that was made later, that is wrapped, or that another
one calls is seen too, as long as it is a torch.optim.Optimizer.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class Watcher(Protocol):
    """Whoever is told of optimizers' steps."""

    def before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> Any:
        """Told before every step of any optimizer."""
        ...

    def after_step(self, optimizer: Optimizer) -> None:
        """Told after every step of any optimizer."""
        ...


_WATCHERS: weakref.WeakSet[Any] = weakref.WeakSet()
_HANDLES: list[Any] = []


def watch(watcher: Watcher) -> None:
    """Tell a sparsifier of all steps, for as long as it lives or until `unwatch`."""
    if not _HANDLES:
        _HANDLES.append(register_optimizer_step_pre_hook(_before))
        _HANDLES.append(register_optimizer_step_post_hook(_after))
    _WATCHERS.add(watcher)


def unwatch(watcher: Watcher) -> None:
    """Tells the watcher of no more steps."""
    _WATCHERS.discard(watcher)


def watchers() -> list[Any]:
    """All who are told of steps."""
    return list(_WATCHERS)


def _before(optimizer: Optimizer, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    changed = None
    for watcher in watchers():
        found = watcher.before_step(optimizer, args, kwargs)
        if found is not None:
            args, kwargs = changed = found
    return changed


def _after(optimizer: Optimizer, *_: Any) -> None:
    for watcher in watchers():
        watcher.after_step(optimizer)
