"""What the papers say of their algorithms, held against a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from analysis.comparing.table import Difference, Table
from analysis.comparing.variants import Variant
from hwsim import units

# (one, other, who says that one is at least as good)
_ORDERS = (
    ("set", "static", "Mocanu et al. 2018"),
    ("rigl", "static", "Evci et al. 2020"),
    ("rigl", "set", "Evci et al. 2020"),
    ("srigl", "static", "Lasby et al. 2023"),
    ("srigl", "set", "Lasby et al. 2023"),
)
FOUND = {
    "better": "reproduced",
    "not told apart": "not contradicted, nor shown: the interval holds 0",
    "worse": "NOT reproduced: it is worse",
}


@dataclass(frozen=True)
class Claim:
    """`one` is at least as good as `other`, says `source`; `difference` is what was found."""

    one: str
    other: str
    source: str
    difference: Difference

    @property
    def line(self) -> str:
        density = units.percent(self.difference.density)
        return (
            f"{self.one} at least as good as {self.other} at {density} ({self.source}): "
            f"{FOUND[self.difference.verdict]}."
        )


def claims(table: Table) -> list[Claim]:
    """The papers' claims that the contenders of a comparison can be held against."""
    made = []
    for one, other, source in _pairs(table.plan.variants):
        for difference in table.differences:
            if {difference.one, difference.other} == {one.name, other.name}:
                turned = difference if difference.one == one.name else difference.turned
                made.append(Claim(one.name, other.name, source, turned))
    return made


def _pairs(variants: tuple[Variant, ...]) -> Iterator[tuple[Variant, Variant, str]]:
    for one, other in permutations(variants, 2):
        if one.settings == other.settings:
            for first, second, source in _ORDERS:
                if (one.algorithm, other.algorithm) == (first, second):
                    yield one, other, source
        if one.algorithm != other.algorithm:
            continue
        if one.settings == other.settings and _without_ablation(other) == {**one.options}:
            yield one, other, "Lasby et al. 2023, of neuron ablation"
        spread = tuple(v.settings.get("distribution", "erk") for v in (one, other))
        if spread == ("erk", "uniform") and one.options == other.options:
            yield one, other, "Evci et al. 2020, of ERK"


def _without_ablation(variant: Variant) -> dict | None:
    """Options of the same SRigL with ablation; None if it is not one without."""
    if variant.algorithm != "srigl" or variant.options.get("gamma", 0) is not None:
        return None
    return {name: value for name, value in variant.options.items() if name != "gamma"}
