"""Whoever calls a public method finds a sentence about it, there or where it is first declared."""

import importlib
import inspect
from pathlib import Path

import pytest

from tests.torchvision_that_fits import torchvision

torchvision()  # integrations import what imports it
ROOT = Path(__file__).parent.parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("hwsim", "sparse_train", "rl", "analysis", "nettime")
    for file in (ROOT / package).rglob("*.py")
    if file.name != "__main__.py"
)


def functions_of(cls):
    """Name → function, of the public methods and properties that are written in the class.

    What a decorator of another package puts there is not.
    """
    for name, value in vars(cls).items():
        inner = getattr(value, "fget", None) or getattr(value, "func", None)
        inner = inner or getattr(value, "__func__", value)
        written = inspect.isfunction(inner) and inner.__module__ == cls.__module__
        if written and not name.startswith("_") and inner.__name__ != "<lambda>":
            yield name, inner


@pytest.mark.parametrize("package", ["hwsim", "sparse_train", "rl", "analysis", "nettime"])
def test_public_methods_say_what_they_do(package):
    silent, seen = [], 0
    for name in (m for m in MODULES if m.partition(".")[0] == package):
        try:
            module = importlib.import_module(name)
        except ImportError:  # An extra is not installed.
            continue
        for cls in (c for c in vars(module).values() if inspect.isclass(c)):
            if cls.__module__ != name or cls.__name__.startswith("_"):
                continue
            for method, function in functions_of(cls):
                seen += 1
                above = (getattr(base, method, None) for base in cls.__mro__[1:])
                if not function.__doc__ and not any(inspect.getdoc(one) for one in above if one):
                    silent.append(f"{name}.{cls.__name__}.{method}")
    assert not silent
    assert seen > 0 or package == "nettime"
