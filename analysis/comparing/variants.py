"""An algorithm with its settings, as a comparison's contender and on a command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim import InputError

CALLED = {
    "static": "static", "set": "SET", "rigl": "RigL", "srigl": "SRigL", "snfs": "SNFS",
    "gmp": "GMP", "granet": "GraNet", "deep_r": "DeepR", "top_kast": "Top-KAST",
    "sr_ste": "SR-STE", "s_ste": "S-STE", "nest": "NeST",
}  # fmt: skip
# What a variant of an algorithm may set of a run, beside the algorithm's own options.
_VARIES = (
    "density", "pattern", "distribution", "schedule", "initial_density", "update_interval",
    "drop_fraction", "drop_schedule", "replace_step", "regulariser", "compute", "layers",
    "rate_power",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """An algorithm with its settings.

    Attributes:
        algorithm: a name in sparse_train.algorithms.
        settings: of TrainConfig, one of pattern, distribution, schedule, …; with `density` it runs
            at that one alone, whatever others do.
        options: of the algorithm.
        label: what tables call it; by default its name and settings.
    """

    algorithm: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """Its label, or the algorithm with what differs from its own settings."""
        if self.label:
            return self.label
        called = CALLED.get(self.algorithm, self.algorithm.replace("_", " "))
        told = {k: v for k, v in self._all.items() if k != "density"}
        plain = set(_VARIES) - {"rate_power", "replace_step"}
        extras = [str(v) if k in plain else _said(k, v) for k, v in told.items()]
        return " ".join([called, *extras])

    @property
    def key(self) -> str:
        """For a folder: equal variants have equal keys."""
        parts = [self.algorithm, *(f"{k}-{v}" for k, v in self._all.items())]
        return "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in p) for p in parts)

    @property
    def _all(self) -> dict[str, Any]:
        return {**self.settings, **self.options}


def _said(option: str, value: Any) -> str:
    known = {
        ("gamma", None): "no ablation", ("rate_power", 1): "lr/d",
        ("trains", "reinitialised"): "reinitialised", ("trains", "random_mask"): "random mask",
    }  # fmt: skip
    return known.get((option, value), f"{option}={value}")


def variant(text: str) -> Variant:
    """A Variant of "name,option=value,…"; values are read as JSON, "none" is None.

    Raises:
        InputError: an unknown algorithm, or something that is neither its option nor a setting.

    >>> variant("srigl,gamma=none").name
    'SRigL no ablation'
    """
    from hwsim.errors import unknown
    from sparse_train.algorithms import ALGORITHMS
    from sparse_train.runs.config import TrainConfig

    name, *pairs = [part.strip() for part in text.split(",")]
    kind = ALGORITHMS.get(name)
    options = tuple(f.name for f in dataclasses.fields(kind))
    settings: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"algorithm {name}: {pair!r} is not an option; allowed is name=value")
        if key not in options and key not in _VARIES:
            raise InputError(unknown(f"option of {name}", key, (*options, *_VARIES)))
        if key in options:
            chosen[key] = value_of(value, key, kind)
        else:
            settings[key] = value_of(value, key, TrainConfig)
    return Variant(name, settings, chosen)


def value_of(text: str, name: str, kind: type) -> Any:
    """What a setting on a command line stands for: JSON, None, or the text itself.

    Args:
        name: of the setting.
        kind: the dataclass that has it. "none" is None only where the field may be None: to a
            field of names, such as the decay of the learning rate, it is a name.
    """
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    if text.lower() == "null" or (text.lower() == "none" and "None" in types.get(name, "None")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
