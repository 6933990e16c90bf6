"""What can be taken by name: a member of ours, an installed one, or the user's own.

Ours are files in a folder (`Registry`) or entries of a table (`NameTable`). Other packages install
members as entry points of the registry's group; `my_module:MyThing` names anything else.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwsim.errors import InputError, unknown
from hwsim.references import is_reference, load, origin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Names(ABC):
    """Members by name.

    Args:
        kind: what a member is called in an error ("algorithm", "device model").
        group: of entry points that other packages install members under; "" for none.
    """

    kind: str
    group: str = field(default="", kw_only=True)

    @abstractmethod
    def own(self) -> tuple[str, ...]:
        """Names of our own members."""

    @abstractmethod
    def _own(self, name: str) -> Any:
        """One of our own members."""

    def names(self) -> tuple[str, ...]:
        """Ours and installed ones; what has a reference only is not among them."""
        return tuple(sorted({*self.own(), *self._installed()}))

    def check(self, name: object, label: str = "") -> None:
        """An InputError unless `name` could be taken. Nothing of the user's is imported.

        Args:
            label: what the error calls it; the registry's kind by default.
        """
        # Ours first: installed ones are looked for on the disk.
        if name in self.own() or is_reference(name):
            return
        if not isinstance(name, str) or name not in self._installed():
            raise InputError(self._unknown(name, label or self.kind))

    def get(self, name: str) -> Any:
        """The member called `name`: ours before an installed one of the same name.

        Raises:
            InputError: there is none (the valid ones are listed), or it cannot be imported.
        """
        if name in self.own():
            return self._own(name)
        installed = self._installed()
        if name in installed:
            try:
                return installed[name].load()
            except Exception as error:
                raise InputError(
                    f"{self.kind} {name!r}: {installed[name].value} cannot be imported: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if is_reference(name):
            return load(name, f"{self.kind} {name!r}")
        raise InputError(self._unknown(name, self.kind))

    def origin(self, name: str) -> dict[str, str] | None:
        """Where a member that is not ours came from, for a run's record; None for ours."""
        if name.partition(":")[0] in self.own():
            return None
        installed = self._installed().get(name)
        if installed is not None:
            package = installed.dist
            known = f"{package.name} {package.version}" if package else "unknown"
            return {"package": known, "entry_point": installed.value}
        return origin(name, f"{self.kind} {name!r}")

    def _installed(self) -> dict[str, EntryPoint]:
        if not self.group:
            return {}
        import importlib.metadata  # takes longer than the rest of this module

        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}

    def _unknown(self, name: object, label: str) -> str:
        return unknown(label, name, self.names()) + "; or module:name for one of your own"


@dataclass(frozen=True)
class Registry(Names):
    """The members of a package: module `rigl.py` is member `rigl`.

    Args:
        package: dotted name of the folder, for example "sparse_train.algorithms".
        attribute: the name that each module binds to its member.

    Names are read from the folder without importing anything; a member's module is imported when
    the member is asked for. Modules whose name starts with an underscore are helpers, not members.
    """

    package: str
    attribute: str

    def own(self) -> tuple[str, ...]:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"{self.package} is not a package")
        found = pkgutil.iter_modules(spec.submodule_search_locations)
        return tuple(sorted(m.name for m in found if not m.name.startswith("_") and not m.ispkg))

    def _own(self, name: str) -> Any:
        return getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)


@dataclass(frozen=True)
class NameTable(Names):
    """Members that are small enough to stand in one file, as a table of names."""

    members: Mapping[str, Any]

    def own(self) -> tuple[str, ...]:
        return tuple(sorted(self.members))

    def _own(self, name: str) -> Any:
        return self.members[name]
