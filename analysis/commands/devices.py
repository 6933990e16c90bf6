"""`nettime devices`: what there is to price training on, and where its numbers are from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim import Device, Mask

# Of a device's parameters, the list shows the first few that say how fast it is.
_SHOWN = 2
_MIB = 2**20
_RATES = ("FLOP/s", "B/s", "bytes/s", "Hz", "PE", "PEs")
# What a device is asked to price to see which of its kernels have been held against real ones.
_PROBE = 512


def register(app: typer.Typer) -> None:
    """Adds `nettime devices`."""
    app.command(
        "devices",
        short_help="List devices, show one with all its sources, check a file of your own.",
        epilog=options.examples(
            "nettime devices",
            "nettime devices wafer",
            "nettime devices --check my.toml",
            "nettime devices wafer --json | jq .parameters",
        ),
    )(devices)


def devices(
    name: Annotated[str | None, typer.Argument(help="A device, or a .toml file.")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Say whether this specification is usable.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Lists the devices; with a name, every parameter with its unit and source."""
    from hwsim import device_names, load_device

    if name is not None and check is not None:
        raise InputError("--check: given with a device name; allowed is one of the two")
    if check is not None:
        _print_check(_load_file(check), check, as_json)
    elif name is not None:
        _print_one(load_device(name), as_json)
    else:
        _print_all([load_device(known) for known in device_names()], as_json)


def _load_file(path: Path) -> Device:
    from hwsim import load_device

    return load_device(path if path.suffix == ".toml" else path.absolute())


def describe(device: Device) -> dict[str, Any]:
    """A device for machines: parameters with value, unit, source, and its kernels."""
    from hwsim.device import parameters_of

    declared = parameters_of(type(device))
    return {
        "name": device.name,
        "model": device.model,
        "description": device.description,
        "parameters": {
            key: {
                "value": getattr(device, key),
                "unit": limits["unit"],
                "meaning": limits["doc"],
                "source": device.sources.get(key, "the model's default"),
            }
            for key, limits in declared.items()
        },
        "kernels": kernels(device),
    }


def kernels(device: Device) -> dict[str, bool]:
    """Kernel → whether a real one has been held against its price, where it is legal.

    Asked of products dense and under masks of several patterns, in what the device trains in. A
    kernel that none of them makes legal has no price that could have been held against anything.
    """
    from hwsim import gemm

    dtype = "bfloat16" if device.model == "gpu" else "float32"
    held: dict[str, list[bool]] = {}
    for phase in ("forward", "grad_input", "grad_weight"):
        for mask in (None, *_masks()):
            for e in device.price(gemm(_PROBE, _PROBE, _PROBE, mask, phase, dtype)):
                held.setdefault(e.kernel, []).extend([e.verified] * e.legal)
    return {kernel: bool(answers) and all(answers) for kernel, answers in held.items()}


@functools.cache
def _masks() -> tuple[Mask, ...]:
    """Any weights; 2:4 in rows and columns; equal fan-in; shared by all rows; blocks of 128."""
    import numpy as np

    from hwsim import Mask

    row, column = np.indices((_PROBE, _PROBE))
    patterns = (
        np.random.default_rng(0).random((_PROBE, _PROBE)) < 0.1,
        (row + column) % 4 < 2,
        (row * 7 + column) % 16 == 0,
        column % 10 == 0,
        (row // 128 + column // 128) % 4 == 0,
    )
    return tuple(Mask(pattern) for pattern in patterns)


def _verified(found: Mapping[str, bool]) -> str:
    held = sum(found.values())
    if held in (0, len(found)):
        return "yes" if held else "no"
    return f"{held} of {len(found)}"


def _value(value: Any, unit: str) -> str:
    from hwsim.units import quantity, seconds

    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item, unit)}" for key, item in value.items())
    if not isinstance(value, (int, float)):
        return str(value)
    if unit == "s":
        return seconds(value)
    if unit == "B" and value >= _MIB // 4 and value * 16 % _MIB == 0:
        return f"{value / _MIB:g} MiB"
    if unit == "1" or unit.endswith("/cycle"):
        return f"{value:g} {unit.removeprefix('1')}".strip()
    return quantity(value, unit)


def _print_all(found: list[Device], as_json: bool) -> None:
    from analysis.display.console import print_json, progress_bar, stdout
    from analysis.display.tables import table

    described = []
    with progress_bar("reading devices", len(found)) as update:
        for number, device in enumerate(found, 1):
            described.append(describe(device))
            update(number, device.name)
    if as_json:
        return print_json({"command": "devices", "devices": described})
    rows = [
        (d["name"], d["model"], d["description"], _main_numbers(d), _verified(d["kernels"]))
        for d in described
    ]
    console = stdout()
    console.print(
        table("", ("device", "model", "what it is", "main numbers", "verified"), rows,
              text=("model", "what it is", "main numbers"))
    )  # fmt: skip
    console.print(
        "verified: whether real kernels have been held against its prices. "
        "Parameters and sources: nettime devices NAME."
    )
    return None


def _main_numbers(described: dict[str, Any]) -> str:
    rates = [(k, p) for k, p in described["parameters"].items() if p["unit"] in _RATES]
    return "; ".join(
        f"{key.removesuffix('_hz').replace('_', ' ')} {_value(p['value'], p['unit'])}"
        for key, p in rates[:_SHOWN]
    )


def _print_one(device: Device, as_json: bool) -> None:
    from analysis.display.console import print_json, stdout
    from analysis.display.tables import table

    described = describe(device)
    if as_json:
        return print_json({"command": "devices", **described})
    console = stdout()
    console.print(f"{device.name} (model {device.model}): {device.description}", style="bold")
    rows = [
        (key, _value(p["value"], p["unit"]), p["meaning"], p["source"])
        for key, p in described["parameters"].items()
    ]
    console.print(
        table("", ("parameter", "value", "meaning", "source"), rows,
              text=("value", "meaning", "source"))
    )  # fmt: skip
    held = described["kernels"]
    console.print(
        "kernels: "
        + ", ".join(f"{kernel} ({'verified' if held[kernel] else 'unverified'})" for kernel in held)
    )
    return None


def _print_check(device: Device, path: Path, as_json: bool) -> None:
    from analysis.display.console import print_json, stdout

    assumed = sorted(k for k, source in device.sources.items() if source.startswith("assumed"))
    if as_json:
        return print_json(
            {"command": "devices", "file": path, "usable": True, "assumed": assumed,
             **describe(device)}
        )  # fmt: skip
    stdout().print(
        f"{path}: usable (model {device.model}, {len(device.sources)} parameters, "
        f"{len(assumed)} of them assumed{': ' + ', '.join(assumed) if assumed else ''})"
    )
    return None
