"""A cluster: nodes of equal cards, links inside a node and between nodes; from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from hwsim.device import Device
from hwsim.errors import InputError, unknown
from hwsim.specification import load_device

_KEYS = {
    "bytes_per_s": "B/s", "latency_s": "s", "share": "1", "slows": "1",
}  # fmt: skip
# Of the SMs, by a collective. Source: Calculon (Isaev et al. 2023), its DGX A100.
_SLOWS = 0.15


@dataclass(frozen=True)
class Link:
    """What one card can send while it receives as much.

    Attributes:
        bytes_per_s: one way, by the data sheet.
        latency_s: of one message.
        share: of the data sheet's rate that collectives reach.
        slows: seconds that a second of a collective costs what is computed beside it: it takes
            processors, memory bandwidth and power.
    """

    bytes_per_s: float
    latency_s: float
    share: float
    slows: float = _SLOWS

    def __post_init__(self) -> None:
        if not self.bytes_per_s > 0:
            raise InputError(f"bytes_per_s: value is {self.bytes_per_s!r}; allowed is above 0")
        if not self.latency_s >= 0:
            raise InputError(f"latency_s: value is {self.latency_s!r}; allowed is at least 0")
        if not 0 < self.share <= 1:
            raise InputError(f"share: value is {self.share!r}; allowed is above 0, at most 1")
        if not 0 <= self.slows <= 1:
            raise InputError(f"slows: value is {self.slows!r}; allowed is 0 to 1")

    @property
    def rate(self) -> float:
        """Bytes a second that collectives reach."""
        return self.bytes_per_s * self.share


@dataclass(frozen=True)
class Cluster:
    """Equal cards in equal nodes.

    Attributes:
        device: prices what one card computes.
        nodes, cards_per_node: how many.
        memory_bytes: of a card.
        inside, between: links of a card within its node, and to other nodes.
        sources: key → where its value is from.
    """

    name: str
    device: Device
    nodes: int
    cards_per_node: int
    memory_bytes: float
    inside: Link
    between: Link
    description: str = ""
    sources: Mapping[str, str] | None = None

    @property
    def cards(self) -> int:
        """Of all nodes."""
        return self.nodes * self.cards_per_node

    def of(self, cards: int) -> Cluster:
        """The same machine with so many cards: part of a node, or whole nodes.

        Raises:
            InputError: a number that fills no whole nodes.
        """
        if isinstance(cards, bool) or not isinstance(cards, int) or cards < 1:
            raise InputError(f"gpus: value is {cards!r}; allowed is an integer of at least 1")
        if cards <= self.cards_per_node:
            return replace(self, nodes=1, cards_per_node=cards)
        if cards % self.cards_per_node:
            raise InputError(
                f"gpus: value is {cards}; allowed is up to {self.cards_per_node}, or a multiple "
                f"of it: {self.name} has {self.cards_per_node} cards a node"
            )
        return replace(self, nodes=cards // self.cards_per_node)

    def link(self, ranks: int, apart: int = 1) -> Link:
        """The slowest link of a ring over `ranks` cards that are `apart` from each other."""
        return self.inside if ranks * apart <= self.cards_per_node else self.between


def cluster_names() -> tuple[str, ...]:
    """The clusters that are shipped."""
    folder = resources.files("hwsim") / "cluster" / "specs"
    names = (f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    return tuple(sorted(n.removesuffix(".toml") for n in names))


def load_cluster(name_or_path: str | Path, **overrides: Any) -> Cluster:
    """A cluster by a shipped name, or from a TOML file of the user's.

    Args:
        overrides: `device` (a Device), `nodes`, `memory_bytes`.

    Raises:
        InputError: an unknown name or key, a broken file, a link without bandwidth.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        where = text
        try:
            content = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cluster {where}: {reason}") from None
    else:
        if text not in cluster_names():
            raise InputError(
                unknown("cluster", text, cluster_names()) + "; or the path of a .toml file"
            )
        where = f"{text}.toml"
        file = resources.files("hwsim") / "cluster" / "specs" / where
        content = file.read_text(encoding="utf-8")
    try:
        parsed = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"cluster {where}: not TOML ({error})") from None
    return _built(Path(text).stem, where, parsed, overrides)


def _built(name: str, where: str, given: Mapping[str, Any], overrides: Mapping) -> Cluster:
    allowed = ("description", "device", "nodes", "cards_per_node", "memory_bytes", "inside",
               "between")  # fmt: skip
    for key in given:
        if key not in allowed:
            raise InputError(f"cluster {where}: " + unknown("key", key, allowed))
    for key in allowed[1:]:
        if key not in given:
            raise InputError(f"cluster {where}: {key} is missing")
    sources: dict[str, str] = {}
    memory = _number(where, "memory_bytes", given["memory_bytes"], "B", sources)
    for key in ("nodes", "cards_per_node"):
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                f"cluster {where}: {key} is {value!r}; allowed is an integer of at least 1"
            )
    device = overrides.get("device") or load_device(given["device"])
    return Cluster(
        name, device, overrides.get("nodes", given["nodes"]), given["cards_per_node"],
        overrides.get("memory_bytes", memory), _link(where, "inside", given, sources),
        _link(where, "between", given, sources), given.get("description", ""), sources,
    )  # fmt: skip


def _link(where: str, label: str, given: Mapping[str, Any], sources: dict[str, str]) -> Link:
    table = given[label]
    if not isinstance(table, Mapping):
        raise InputError(f"cluster {where}: {label} is {table!r}; allowed is a table")
    for key in table:
        if key not in _KEYS:
            raise InputError(f"cluster {where}: {label}: " + unknown("key", key, tuple(_KEYS)))
    values = {}
    for key, unit in _KEYS.items():
        if key not in table:
            if key == "slows":
                continue
            raise InputError(f"cluster {where}: {label}.{key} is missing")
        values[key] = _number(where, f"{label}.{key}", table[key], unit, sources)
    try:
        return Link(**values)
    except InputError as error:
        raise InputError(f"cluster {where}: {label}.{error}") from None


def _number(where: str, key: str, entry: Any, unit: str, sources: dict[str, str]) -> float:
    if not isinstance(entry, Mapping) or set(entry) != {"value", "unit", "source"}:
        raise InputError(f"cluster {where}: {key} needs value, unit and source")
    if entry["unit"] != unit:
        raise InputError(f"cluster {where}: {key}: unit is {entry['unit']!r}; allowed is {unit!r}")
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InputError(f"cluster {where}: {key} is {value!r}; allowed is a number of at least 0")
    sources[key] = str(entry["source"])
    return float(value)
