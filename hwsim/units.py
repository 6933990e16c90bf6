"""Numbers for people: three digits that mean something, always with a unit."""

from __future__ import annotations

import math

_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_THOUSANDS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))

# Nobody plans with a ratio beyond this: what is left of such a step is not what was priced.
_CLEARLY_MANY = 10_000


def digits(value: float, figures: int = 3) -> str:
    """`value` rounded to `figures` significant digits, without an exponent.

    >>> digits(1234.5), digits(0.012345), digits(2.0)
    ('1230', '0.0123', '2.00')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value == 0:
        return "0"
    decimals = figures - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # Rounding can add a digit: 9.996 is 10.0, not 10.00.
    decimals = figures - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def seconds(value: float) -> str:
    """A duration in its natural unit.

    >>> seconds(0.00123), seconds(75.0), seconds(0.0)
    ('1.23 ms', '1.25 min', '0 s')
    """
    if not math.isfinite(value) or value == 0:
        return f"{digits(value)} s" if value == 0 else digits(value)
    scale, unit = unit_of(value)
    return f"{digits(value / scale)} {unit}"


def unit_of(longest_s: float) -> tuple[float, str]:
    """The natural unit of a duration: (seconds in it, its name).

    >>> unit_of(0.02)
    (0.001, 'ms')
    """
    # The step to the larger unit is taken where three digits would round up to it.
    return next(((s, u) for s, u in _SECONDS if abs(longest_s) >= s * 0.9995), _SECONDS[-1])


def interval(low: float, high: float) -> str:
    """Both ends in the unit of the larger; a dash if they are the same number.

    >>> interval(0.0009, 0.0013), interval(2.0, 2.0)
    ('0.900–1.30 ms', '–')
    """
    if low == high:
        return "–"
    scale, unit = unit_of(high)
    return f"{digits(low / scale)}–{digits(high / scale)} {unit}"


def quantity(value: float, unit: str = "") -> str:
    """A number with a decimal prefix before its unit.

    >>> quantity(1.979e15, "FLOP/s"), quantity(109_482_240), quantity(0.5, "B")
    ('1.98 PFLOP/s', '109 M', '0.500 B')
    """
    if value == 0 or not math.isfinite(value) or abs(value) < 1:
        return f"{digits(value)} {unit}".strip()
    scale, prefix = next((s, p) for s, p in _THOUSANDS if abs(value) >= s * 0.9995 or s == 1.0)
    number = value / scale
    text = str(int(number)) if prefix == "" and float(number).is_integer() else digits(number)
    return f"{text} {prefix}{unit}".strip()


def ratio(value: float) -> str:
    """How many times: two significant digits, enough to compare with, and an end.

    >>> ratio(6.14), ratio(12.4), ratio(0.283)
    ('6.1×', '12×', '0.28×')
    """
    if value > _CLEARLY_MANY:
        return f">{_CLEARLY_MANY}×"
    return f"{digits(value, 2)}×" if math.isfinite(value) else "–"


def percent(share: float) -> str:
    """A share in per cent, without pretending that a small one is none.

    >>> percent(0.123), percent(0.004), percent(0.0), percent(0.999)
    ('12 %', '0.4 %', '0 %', '99.9 %')
    """
    value = share * 100
    if 0 < value < 0.1:
        return "<0.1 %"
    if 0 < value < 1 or 99 < value < 100:
        return f"{min(value, 99.9) if value > 99 else value:.1f} %"
    return f"{value:.0f} %"


def shares(parts: dict[str, float]) -> str:
    """What has which share of a sum, the most first; below half a per cent of it is left out.

    >>> shares({"memory": 1.0, "port": 3.0, "launch": 0.001}), shares({"port": 2.0}), shares({})
    ('port 75 %, memory 25 %', 'port', 'nothing')
    """
    total = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda part: -part[1])
    named = [(name, value / total) for name, value in ranked if value > 0.005 * total]
    if len(named) < 2:
        return named[0][0] if named else "nothing"
    return ", ".join(f"{name} {percent(share)}" for name, share in named)
