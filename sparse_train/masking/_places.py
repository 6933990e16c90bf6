"""Where masks are chosen: on the host, or where the weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError, unknown
from sparse_train.algorithms import Algorithm
from sparse_train.masking.layers import MaskedLayer
from sparse_train.patterns import Projection

PLACES = ("auto", "host", "device")


def check_place(wanted: str) -> str:
    if wanted not in PLACES:
        raise InputError(unknown("choose_on", wanted, PLACES))
    return wanted


def place(
    wanted: str, algorithm: Algorithm, pattern: Projection, layers: Iterable[MaskedLayer]
) -> tuple[torch.device | None, str]:
    """The device on which masks are chosen, None for the host; and why not there, if they are not.

    Args:
        wanted: "auto" is the weights' device unless that is the CPU, whose own kernels are faster;
            "device" takes the weights' device whatever it is; "host".
    """
    devices = {layer.parameter.device for layer in layers}
    if wanted == "host" or (wanted == "auto" and all(d.type == "cpu" for d in devices)):
        return None, ""
    if not vars(type(algorithm)).get("on_device", False):
        return None, f"{type(algorithm).__name__} has no form for a device"
    if "on_device" not in vars(type(pattern)) or not pattern.on_device:
        return None, f"{pattern.name} has no form for a device"
    if len(devices) > 1:
        return None, f"layers are on {len(devices)} devices"
    return devices.pop(), ""


class Arrays(Mapping[str, Any]):
    """Part → its rows of its layer's array, which is made when it is first asked for.

    On the host read-only: an algorithm that writes to its input fails at once.
    """

    def __init__(self, layers: Iterable[MaskedLayer], array: Callable[[MaskedLayer], Any]) -> None:
        self._layers = {part: layer for layer in layers for part in layer.parts}
        self._array = array
        self._wholes: dict[str, Any] = {}
        self._found: dict[str, Any] = {}

    def only(self, names: Iterable[str]) -> Arrays:
        """These parts alone."""
        new = Arrays((), self._array)
        new._layers = {name: self._layers[name] for name in names}
        new._wholes, new._found = self._wholes, self._found
        return new

    def __getitem__(self, part: str) -> Any:
        layer = self._layers[part]
        if part not in self._found:
            if layer.name not in self._wholes:
                self._wholes[layer.name] = self._array(layer)
            self._found[part] = locked(self._wholes[layer.name][layer.parts[part]])
        return self._found[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def locked(array: Any) -> Any:
    """A read-only view of an array; a tensor, which has none, as it is."""
    if isinstance(array, Tensor):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def at(value: Any, device: torch.device | None) -> Any:
    """A state with its arrays and tensors all on the host, or all on a device."""
    if isinstance(value, Mapping):
        return {key: at(item, device) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy() if device is None else value.to(device)
    if isinstance(value, np.ndarray) and device is not None:
        return torch.from_numpy(value.copy()).to(device)
    return value
