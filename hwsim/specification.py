"""Loading a device from its specification, a TOML file.

    model = "wafer"
    description = "one line for people"

    [parameters]
    clock_hz = { value = 1.1e9, unit = "Hz", source = "where the number is from, or: assumed" }

`like = "h100_sxm"` in place of `model` takes all of a shipped specification; this file then says
only what differs. Every number carries its unit and source. A wrong one is an InputError that
names file, line, key.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hwsim.device import Device, check_parameter, parameters_of
from hwsim.errors import InputError, unknown
from hwsim.files import read_text
from hwsim.registry import Registry

MODELS = Registry("device model", "hwsim.devices", "MODEL", group="nettime.devices")
_TOP = ("model", "like", "description", "parameters")
_LARGEST_BYTES = 16 << 20
_ENTRY = ("value", "unit", "source")


def device_names() -> tuple[str, ...]:
    """The devices whose specification is shipped with hwsim."""
    folder = resources.files("hwsim") / "devices" / "specs"
    return tuple(
        sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))
    )


def load_device(name_or_path: str | Path, **overrides: Any) -> Device:
    """A device by the name of a shipped specification, or from a TOML file of the user's.

    Args:
        name_or_path: one of `device_names()`, or a path (it ends in .toml or has a separator).
        overrides: parameters that replace those of the file, in the file's unit.

    Raises:
        InputError: unknown name (the valid ones are listed), unreadable or broken file (file,
            line and key are named), unknown or impossible parameter.

    >>> load_device("ideal", peak_flops=1e12).peak_flops
    1000000000000.0
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        path = Path(name_or_path)
        content = read_text(path, f"device specification {path}", _LARGEST_BYTES)
        return _build(path.stem, str(path), content, overrides)
    if text not in device_names():
        raise InputError(
            unknown("device", text, device_names()) + "; or the path of a .toml specification"
        )
    shipped = resources.files("hwsim") / "devices" / "specs" / f"{text}.toml"
    return _build(text, f"{text}.toml", shipped.read_text(encoding="utf-8"), overrides)


def _build(name: str, file: str, content: str, overrides: Mapping[str, Any]) -> Device:
    try:
        table = tomllib.loads(content)
    except RecursionError:
        raise InputError(f"{file}: not valid TOML: brackets nested too deep") from None
    except ValueError as error:  # also a number of more digits than Python reads
        raise InputError(f"{file}: not valid TOML: {error}") from None
    for key in table:
        if key not in _TOP:
            raise InputError(f"{_where(file, content, key)}: {unknown('key', key, _TOP)}")
    description = table.get("description", "")
    if not isinstance(description, str):
        raise InputError(f"{_where(file, content, 'description')}: allowed is text")
    if "like" in table:
        return _like(name, file, content, table, overrides)
    if "model" not in table:
        raise InputError(f"{file}: key 'model' is missing (valid: {', '.join(MODELS.names())})")
    if not isinstance(table["model"], str):
        raise InputError(f"{_where(file, content, 'model')}: allowed is the name of a model")
    try:
        model = MODELS.get(table["model"])
    except InputError as error:
        raise InputError(f"{_where(file, content, 'model')}: {error}") from None
    declared = parameters_of(model)
    values, sources = _given(file, content, table, declared)
    for key, value in overrides.items():
        if key not in declared:
            raise InputError(f"device {name!r}: {unknown('parameter', key, sorted(declared))}")
        values[key] = check_parameter(f"device {name!r}: {key}", value, declared[key])
        sources[key] = "override"
    for key, limits in declared.items():
        if limits["required"] and key not in values:
            raise InputError(f"{file}: parameter {key!r} ({limits['unit']}) is missing")
    try:
        return model(name=name, description=description, sources=sources, **values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _given(
    file: str, content: str, table: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and sources of the parameters that a file gives."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    given = table.get("parameters", {})
    if not isinstance(given, dict):
        raise InputError(f"{_where(file, content, 'parameters')}: allowed is a table")
    for key, entry in given.items():
        where = _where(file, content, key)
        if key not in declared:
            raise InputError(f"{where}: {unknown('parameter', key, sorted(declared))}")
        values[key], sources[key] = _entry(where, key, entry, declared[key])
    return values, sources


def _like(
    name: str, file: str, content: str, table: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Device:
    """A device that differs from a shipped one in what its file says."""
    where = _where(file, content, "like")
    if "model" in table:
        raise InputError(f"{where}: like is given beside model; allowed is one of them")
    if table["like"] not in device_names() or table["like"] == name:
        others = [n for n in device_names() if n != name]
        raise InputError(f"{where}: {unknown('device', table['like'], others)}")
    base = load_device(table["like"])
    values, sources = _given(file, content, table, parameters_of(type(base)))
    found = load_device(table["like"], **{**values, **overrides})
    kept = {k: v for k, v in {**base.sources, **sources}.items() if k not in overrides}
    return dataclasses.replace(
        found, name=name, description=table.get("description", found.description),
        sources={**kept, **dict.fromkeys(overrides, "override")},
    )  # fmt: skip


def _entry(where: str, key: str, entry: Any, limits: Mapping[str, Any]) -> tuple[Any, str]:
    """Value and source of one parameter's table."""
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: {key} is {entry!r}; allowed is a table "
            f'{{ value = …, unit = "{limits["unit"]}", source = "…" }}'
        )
    for part in entry:
        if part not in _ENTRY:
            raise InputError(f"{where}: {key}: {unknown('key', part, _ENTRY)}")
    for part in _ENTRY:
        if part not in entry:
            raise InputError(f"{where}: {key}: '{part}' is missing")
    if entry["unit"] != limits["unit"]:
        raise InputError(
            f"{where}: {key}: unit is {entry['unit']!r}; allowed is {limits['unit']!r}"
        )
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise InputError(f"{where}: {key}: source is empty; say where it is from, or 'assumed'")
    return check_parameter(f"{where}: {key}", entry["value"], limits), entry["source"]


def _where(file: str, content: str, key: str) -> str:
    """`file:line` of the first line that binds `key`."""
    pattern = re.compile(rf"^\s*(\[.*\b)?{re.escape(key)}\b")
    for number, line in enumerate(content.splitlines(), start=1):
        if pattern.match(line):
            return f"{file}:{number}"
    return file
