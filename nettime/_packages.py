"""The four packages have common names: is each of them ours?"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("hwsim", "sparse_train", "rl", "analysis")


class HiddenPackage(ImportError):
    """A folder or file of the user's hides one of our packages."""


def check_not_hidden(package: str = PACKAGES[-1]) -> None:
    """A HiddenPackage that names the folder, if `package` or one below it is not ours.

    Args:
        package: dotted; each of PACKAGES imports those before it.
    """
    for name in PACKAGES[: PACKAGES.index(package.split(".")[0]) + 1]:
        found = hidden_by(name)
        if found is not None:
            raise HiddenPackage(
                f"{found} hides nettime's package {name!r}: rename it, or run from another "
                "directory"
            )


def hidden_by(name: str) -> Path | None:
    """What is found under a package's name in place of ours; None if ours is."""
    ours = Path(__file__).resolve().parent.parent / name
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None) or importlib.util.find_spec(name)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    first = Path(places[0]).resolve()
    return None if first == ours else first
