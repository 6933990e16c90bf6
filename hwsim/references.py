"""Things of the user's own by reference: `my_module:MyThing`, or `path/to/file.py:MyThing`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hwsim.errors import InputError, unknown

_MODULE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"(?P<module>{_MODULE}|[^:]+\.py):(?P<name>[A-Za-z_]\w*)(:(?P<rest>.*))?")


def is_reference(text: object) -> bool:
    """Whether a name has the form of a reference. Nothing is imported.

    >>> is_reference("my_module:Mine"), is_reference("block:16,16"), is_reference("rigl")
    (True, False, False)
    """
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def load(reference: str, label: str) -> Any:
    """What `module:name` names, the module imported from the working directory or the path.

    Args:
        reference: the module is dotted, or a path that ends in .py.
        label: for errors, such as "algorithm" or "--model".

    Raises:
        InputError: no such module or name, or an error while it was imported.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(
            f"{label}: value is {reference!r}; allowed is module:function or file.py:function"
        )
    module = _imported(match["module"], label)
    found = getattr(module, match["name"], None)
    if found is None:
        public = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise InputError(
            f"{label}: in {match['module']}: {unknown('name', match['name'], public or ['none'])}"
        )
    return found


def origin(reference: str, label: str) -> dict[str, str] | None:
    """Where a reference leads: its file and that file's digest; None for what has no file."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return None
    module = _imported(match["module"], label)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    content = Path(file).read_bytes()
    return {"file": str(Path(file).resolve()), "sha256": hashlib.sha256(content).hexdigest()}


def _imported(name: str, label: str) -> ModuleType:
    try:
        return _from_file(Path(name)) if name.endswith(".py") else _from_path(name)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            raise InputError(f"{label}: no module {name!r} in {Path.cwd()}") from None
        raise InputError(f"{label}: {name} needs a module {error.name!r}") from None
    except Exception as error:
        raise InputError(
            f"{label}: importing {name} failed: {type(error).__name__}: {error}"
        ) from error


def _from_path(name: str) -> ModuleType:
    with _working_directory_first():
        return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    """The same file is the same module, so that its classes stay equal to themselves."""
    if not path.is_file():
        raise InputError(f"no file {path} in {Path.cwd()}")
    whole = path.resolve()
    name = f"_nettime_{whole.stem}_{hashlib.sha256(str(whole).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look their module up while it is made.
    try:
        with _working_directory_first():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _working_directory_first() -> Iterator[None]:
    """On the path while a module of the user's is imported, and not after."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
