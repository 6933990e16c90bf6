"""What the papers say of their algorithms, held against a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

from analysis.comparing.conclusion import CLAIM_SEEDS, LEVEL
from analysis.comparing.table import Difference, Table
from analysis.comparing.variants import Variant
from analysis.stats import holm
from hwsim import units

# (one, other, who says that one is at least as good)
_ORDERS = (
    ("set", "static", "Mocanu et al. 2018"),
    ("rigl", "static", "Evci et al. 2020"),
    ("rigl", "set", "Evci et al. 2020"),
    ("srigl", "static", "Lasby et al. 2023"),
    ("srigl", "set", "Lasby et al. 2023"),
)
# Of a claim, by what is found with Holm's correction over all claims of the comparison.
REPRODUCED = "reproduced"
OPEN = "not contradicted, nor shown"
CONTRADICTED = "NOT reproduced: it is worse"


@dataclass(frozen=True)
class Claim:
    """`one` is at least as good as `other`, says `source`; `difference` is what was found.

    Attributes:
        p: of the difference, corrected for all claims of the comparison.
        learnt, tuned: whether both learnt something, and were tuned as the protocol asks.
    """

    one: str
    other: str
    source: str
    difference: Difference
    p: float = 1.0
    learnt: bool = True
    tuned: bool = True

    @property
    def found(self) -> str:
        """REPRODUCED and CONTRADICTED only at the 5 % level, with seeds enough for a claim."""
        if not self.learnt:
            return "no conclusion: nothing was learnt"
        if not self.tuned:
            return "no conclusion: not tuned as the protocol asks"
        n = self.difference.interval.n
        sure = self.p < LEVEL and n >= CLAIM_SEEDS
        if sure and self.difference.interval.point != 0:
            return REPRODUCED if self.difference.interval.point > 0 else CONTRADICTED
        few = f" ({n} of the {CLAIM_SEEDS} seeds that a claim takes)" if n < CLAIM_SEEDS else ""
        return f"{OPEN}{few}; {units.digits(self.difference.detectable, 2)} would have shown"

    @property
    def line(self) -> str:
        """The claim, its paper, and what was found."""
        density = units.percent(self.difference.density)
        return (
            f"{self.one} at least as good as {self.other} at {density} ({self.source}): "
            f"{self.found}."
        )


def claims(table: Table) -> list[Claim]:
    """The papers' claims that the contenders of a comparison can be held against."""
    made: list[Claim] = []
    rows = {(row.entry.variant, row.entry.density): row for row in table.rows}
    for one, other, source in _pairs(table.plan.variants):
        for difference in table.differences:
            if {difference.one, difference.other} == {one.name, other.name}:
                turned = difference if difference.one == one.name else difference.turned
                both = [rows[name, difference.density] for name in (one.name, other.name)]
                made.append(Claim(
                    one.name, other.name, source, turned,
                    learnt=all(table.learnt(row) is not False for row in both),
                    tuned=table.plan.tuned and not any(row.choice.at_an_end for row in both),
                ))  # fmt: skip
    p_values = holm([claim.difference.p for claim in made])
    return [replace(claim, p=p) for claim, p in zip(made, p_values, strict=True)]


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
        alike = one.settings == other.settings and _ticket(one) == _ticket(other) is not None
        if alike and "trains" not in one.options and "trains" in other.options:
            yield one, other, "Frankle & Carbin 2019"
        spread = tuple(v.settings.get("distribution", "erk") for v in (one, other))
        if spread == ("erk", "uniform") and one.options == other.options:
            yield one, other, "Evci et al. 2020, of ERK"


def _ticket(variant: Variant) -> dict | None:
    """Options of a lottery ticket but for what its last round trains; None if it is not one."""
    if variant.algorithm != "lottery":
        return None
    return {name: value for name, value in variant.options.items() if name != "trains"}


def _without_ablation(variant: Variant) -> dict | None:
    """Options of the same SRigL with ablation; None if it is not one without."""
    if variant.algorithm != "srigl" or variant.options.get("gamma", 0) is not None:
        return None
    return {name: value for name, value in variant.options.items() if name != "gamma"}
