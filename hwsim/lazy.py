"""Packages whose names are loaded when they are asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> None:
    """Makes each name an attribute of the package that imports its home at first use.

    A name may be that of a module of the package too (a function `workload` in `workload`): an
    import of the module would bind it to the package, and here leaves the name alone.

    Args:
        package: `__name__` of a package, from its `__init__`.
        homes: name → the module that defines it.
    """

    def found(name: str) -> Any:
        return getattr(importlib.import_module(homes[name]), name)

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            self.__dict__[name] = found(name)
            return self.__dict__[name]

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *homes})

    for name, home in homes.items():
        if home == f"{package}.{name}":
            setattr(Package, name, _fixed(package, name, found))
    sys.modules[package].__class__ = Package


def _fixed(package: str, name: str, found: Any) -> property:
    def bind(self: ModuleType, value: object) -> None:
        if not isinstance(value, ModuleType):
            raise AttributeError(f"{package}.{name} is a function of ours; it is not set")

    return property(lambda self: found(name), bind)
