"""A folder in which one file is one member, found by scanning."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError


@dataclass(frozen=True)
class Registry:
    """The members of a package: module `rigl.py` is member `rigl`.

    Args:
        kind: what a member is called in an error ("algorithm", "device model").
        package: dotted name of the folder, for example "sparse_train.algorithms".
        attribute: the name that each module binds to its member.

    Names are read from the folder without importing anything; a member's module is imported when
    the member is asked for. Modules whose name starts with an underscore are helpers, not members.
    """

    kind: str
    package: str
    attribute: str

    def names(self) -> tuple[str, ...]:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"{self.package} is not a package")
        found = pkgutil.iter_modules(spec.submodule_search_locations)
        return tuple(sorted(m.name for m in found if not m.name.startswith("_") and not m.ispkg))

    def get(self, name: str) -> Any:
        """The member called `name`; an InputError that lists the valid names if there is none."""
        names = self.names()
        if name not in names:
            raise InputError(unknown(self.kind, name, names))
        return getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)


def unknown(kind: str, name: object, valid: tuple[str, ...] | list[str]) -> str:
    """One line for a name that is not known: the name, the nearest valid one, all valid ones."""
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (valid: {', '.join(valid)})"
