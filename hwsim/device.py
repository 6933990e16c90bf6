"""A device: a specification plus a model that prices operations on it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hwsim.bounded import prices
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import Op, Workload

# Sizes of parameters whose products and quotients are numbers still.
_LEAST, _MOST = 1e-100, 1e100
# Prices under ways in which a mask may fall count as alike up to a deviation of _ALIKE. Otherwise
# so many are asked that their mean is known to _KNOWN, and that one in a hundred is met.
_ALIKE, _KNOWN, _LEAST_WAYS, _MOST_WAYS = 0.002, 0.003, 400, 1600


def parameter(
    unit: str,
    doc: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    integer: bool = False,
    choices: tuple[str, ...] | None = None,
    by_dtype: bool = False,
    vectors: bool = False,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A field of a device model that its specification gives: unit, meaning, allowed values.

    `by_dtype` makes it a mapping from dtype name to number, `vectors` one from a name to a list of
    numbers. A parameter without default must be in every specification of the model.
    """
    metadata = {
        "unit": unit, "doc": doc, "above": above, "at_least": at_least, "at_most": at_most,
        "integer": integer, "choices": choices, "by_dtype": by_dtype, "vectors": vectors,
    }  # fmt: skip
    return field(default=default, metadata={"parameter": metadata}, kw_only=True)


@dataclass(frozen=True, eq=False)
class Device:
    """Prices operations. Pure: the same op gets the same Estimate, whatever was asked before.

    A model is a subclass, one file in `hwsim/devices/`, that declares its parameters as fields
    made by `parameter` and gives `price(op)` and `roofline(op)`. `clock_hz` turns seconds into
    cycles and back.

    Attributes:
        name: of the specification.
        description: one line for people.
        sources: parameter → where its value is from ("assumed" if from nowhere, "override" if
            given by the caller).
    """

    name: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    sources: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    memory_bytes: float = parameter(
        "B", "what its memory holds; without it, nothing is said of what fits", above=0.0,
        default=math.inf,
    )  # fmt: skip
    _unmasked: dict[tuple, tuple[Estimate, ...]] = field(
        default_factory=prices, init=False, repr=False
    )

    model: ClassVar[str] = ""
    # Ways in which a mask's statistics may fall: asked first, more where single lines decide.
    ways: ClassVar[int] = 24
    most_ways: ClassVar[int] = _MOST_WAYS

    def price(self, op: Op) -> tuple[Estimate, ...]:
        """One Estimate per kernel that the model knows for ops of this kind, legal or not.

        In any order; or the fastest first with the others as its `rejected`, which saves a copy.
        """
        raise TypeError(f"{type(self).__name__} must define price(op)")

    def roofline(self, op: Op) -> float:
        """Seconds that no kernel on this device can beat for `op` under its mask."""
        raise TypeError(f"{type(self).__name__} must define roofline(op)")

    def kernels(self, op: Op) -> tuple[Estimate, ...]:
        """One Estimate per kernel, legal or rejected with the reason; the fastest first.

        Prices are kept: for as long as the mask lives for masked ops, for as long as the device
        does for the others.
        """
        if not isinstance(op, Op):
            raise InputError(f"op: type is {type(op).__name__}; allowed is hwsim.Op")
        (ranked,) = self._all_kernels((op,))
        return ranked

    def estimate(self, item: Op | Workload) -> Estimate:
        """The fastest legal kernel of an op; of a workload, the sum over its ops.

        Raises:
            InputError: no kernel of this device can run the op; each reason is named.
        """
        if isinstance(item, Workload):
            item.count_masks()
            return Estimate.total([ranked[0] for ranked in self._all_kernels(item.ops)])
        return self.kernels(item)[0]

    def breakdown(self, workload: Workload) -> list[tuple[Op, Estimate]]:
        """The ops of a workload in order, each with its price."""
        return [(op, self.estimate(op)) for op in workload.ops]

    def seconds_of(self, workload: Workload) -> list[float]:
        """Of each op within the step; they add up to the step's estimate."""
        return [self.estimate(op).seconds for op in workload.ops]

    def cycles(self, seconds: float) -> float:
        """Seconds as cycles of the device's clock."""
        return seconds * getattr(self, "clock_hz", 1.0)

    def _all_kernels(self, ops: Sequence[Op]) -> list[tuple[Estimate, ...]]:
        """`kernels` of each op; what is not known yet is priced all at once."""
        found: list[Any] = []
        new = []
        for op in ops:
            known = self._unmasked if op.mask is None else op.mask.prices(self)
            ranked = known.get(op.signature)
            if ranked is None:
                new.append((len(found), op, known))
            found.append(ranked)
        if new:
            fresh = self._rank_all([op for _, op, _ in new])
            for (i, op, known), ranked in zip(new, fresh, strict=True):
                found[i] = known[op.signature] = self._expected(op, ranked)
        return found

    def _expected(self, op: Op, ranked: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
        """Over the ways in which the statistics of a mask may fall, if no more is known of it."""
        if op.mask is None or not op.mask.variants:
            return ranked
        each = [found[0] for found in self.over_ways(op)]
        best, many = ranked[0], len(each)
        expected = dataclasses.replace(
            best, seconds=sum(e.seconds for e in each) / many,
            low_s=sum(e.low_s for e in each) / many, high_s=sum(e.high_s for e in each) / many,
            cycles=sum(e.cycles for e in each) / many,
        )  # fmt: skip
        return (expected, *ranked[1:])

    def over_ways(self, op: Op) -> list[tuple[Estimate, ...]]:
        """`kernels` of an op under each way in which its mask's statistics may fall.

        Where the first few differ by more than a trifle there are events among them that happen to
        some masks alone, and more of them are asked.
        """
        mask = op.mask
        assert mask is not None
        found = self._all_kernels([op.with_mask(way) for way in mask.ways(self.ways)])
        seconds = [ranked[0].seconds for ranked in found]
        if not seconds or not statistics.fmean(seconds):
            return found
        deviation = statistics.pstdev(seconds) / statistics.fmean(seconds)
        if deviation <= _ALIKE:
            return found
        many = _LEAST_WAYS if deviation <= _KNOWN * _LEAST_WAYS**0.5 else _MOST_WAYS
        ways = mask.ways(min(many, self.most_ways))
        return self._all_kernels([op.with_mask(way) for way in ways])

    def _rank_all(self, ops: Sequence[Op]) -> list[tuple[Estimate, ...]]:
        """`_ranked` of each op; a model that is faster at many at once overrides it."""
        return [self._ranked(op) for op in ops]

    def _ranked(self, op: Op) -> tuple[Estimate, ...]:
        found = self.price(op)
        if found and found[0].legal and (len(found) == 1 or found[0].rejected):
            return found  # one kernel, or in order already: nothing to copy
        priced = sorted(found, key=lambda e: (not e.legal, e.seconds))
        if not priced or not priced[0].legal:
            reasons = "; ".join(f"{e.kernel}: {e.reason}" for e in priced) or "none is modelled"
            raise InputError(
                f"device {self.name!r} has no kernel for {op.kind} {op.phase} "
                f"{op.name!r} ({reasons})"
            )
        best = dataclasses.replace(priced[0], rejected=tuple(priced[1:]))
        return (best, *priced[1:])


def parameters_of(model: type[Device]) -> dict[str, dict[str, Any]]:
    """Parameter name → unit, meaning and limits, as the model declares them."""
    return {
        f.name: {**f.metadata["parameter"], "required": f.default is dataclasses.MISSING}
        for f in dataclasses.fields(model)
        if "parameter" in f.metadata
    }


def check_parameter(name: str, value: Any, limits: Mapping[str, Any]) -> Any:
    """The value, as a number of the right kind; an InputError that says what is allowed."""
    if limits["choices"] is not None:
        if not isinstance(value, str) or value not in limits["choices"]:
            raise InputError(f"{name}: value is {value!r}; allowed: {', '.join(limits['choices'])}")
        return value
    if limits["vectors"]:
        if not isinstance(value, Mapping) or not all(isinstance(v, list) for v in value.values()):
            raise InputError(f"{name}: value is {value!r}; allowed is a table name → [numbers]")
        single = {**limits, "vectors": False}
        return {k: [check_parameter(f"{name}.{k}", x, single) for x in v] for k, v in value.items()}
    if limits["by_dtype"]:
        if not isinstance(value, Mapping) or not value:
            raise InputError(f"{name}: value is {value!r}; allowed is a table dtype → number")
        single = {**limits, "by_dtype": False}
        return {key: check_parameter(f"{name}.{key}", v, single) for key, v in value.items()}
    allowed = _allowed(limits)
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = good and not (isinstance(value, float) and math.isnan(value))
    if good and not (value == 0 or abs(value) == math.inf or _LEAST <= abs(value) <= _MOST):
        raise InputError(
            f"{name}: value is {_short(value)}; allowed is 0, or {_LEAST:g} to {_MOST:g}"
        )
    if good and limits["integer"]:
        good = float(value).is_integer()
    if good and limits["above"] is not None:
        good = value > limits["above"]
    if good and limits["at_least"] is not None:
        good = value >= limits["at_least"]
    if good and limits["at_most"] is not None:
        good = value <= limits["at_most"]
    if not good:
        raise InputError(f"{name}: value is {_short(value)}; allowed is {allowed}")
    return int(value) if limits["integer"] else float(value)


def _short(value: Any) -> str:
    """A value as people can read it, also where it has hundreds of digits."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python prints
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


def _allowed(limits: Mapping[str, Any]) -> str:
    words = ["an integer" if limits["integer"] else "a number"]
    if limits["above"] is not None:
        words.append(f"above {limits['above']:g}")
    if limits["at_least"] is not None:
        words.append(f"of at least {limits['at_least']:g}")
    if limits["at_most"] is not None:
        words.append(f"of at most {limits['at_most']:g}")
    return f"{' '.join(words)} ({limits['unit']})"
