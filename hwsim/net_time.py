"""Net training time: the price of every step of a run, added up."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

import numpy as np

from hwsim.bounded import prices
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import Workload

_known: weakref.WeakKeyDictionary[Device, dict[str, Estimate]] = weakref.WeakKeyDictionary()


def step_estimate(device: Device, workload: Workload) -> Estimate:
    """The price of one step, kept by the workload's digest: equal masks are priced once."""
    known = _known.setdefault(device, prices())
    digest = workload.digest
    found = known.pop(digest, None) or device.estimate(workload)
    known[digest] = found  # the last place is that of what was asked for last
    return found


def net_time(device: Device, pairs: Iterable[tuple[Workload, int]]) -> Estimate:
    """The price of a whole run.

    Args:
        device: where it would run.
        pairs: (workload of one step, how many such steps). Growth steps, mask updates and packing
            count because they are ops of these workloads: `Workload.growth_step`,
            `Workload.with_masks`.

    Raises:
        InputError: a number of steps that is no integer of at least 0.
    """
    parts = []
    for workload, steps in pairs:
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
            raise InputError(f"steps: value is {steps!r}; allowed is an integer of at least 0")
        if steps:
            parts.append(step_estimate(device, workload).scaled(int(steps)))
    return Estimate.total(parts)


def cumulative(
    device: Device,
    pairs: Iterable[tuple[Workload, int]],
    at_steps: Sequence[int] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Net seconds spent when each of `at_steps` steps is done, with the interval's ends.

    Args:
        pairs: as for `net_time`, in the order of the run.
        at_steps: numbers of steps, from 0 to the run's length.

    Returns:
        seconds, low_s, high_s, each (len(at_steps),).
    """
    return cumulative_on([device], pairs, at_steps)[0]


def cumulative_on(
    devices: Sequence[Device],
    pairs: Iterable[tuple[Workload, int]],
    at_steps: Sequence[int] | np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`cumulative` on each device; the pairs are gone through once."""
    ends = [0]
    totals: list[list[np.ndarray]] = [[np.zeros(3)] for _ in devices]
    for workload, steps in pairs:
        ends.append(ends[-1] + steps)
        for device, total in zip(devices, totals, strict=True):
            step = step_estimate(device, workload)
            total.append(total[-1] + steps * np.array([step.seconds, step.low_s, step.high_s]))
    wanted = np.asarray(at_steps, dtype=np.float64)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() <= ends[-1]:
        raise InputError(f"at_steps: {wanted.min():g} to {wanted.max():g}; allowed 0 to {ends[-1]}")
    # Within a pair every step costs the same, so the straight line between its ends is exact.
    found = []
    for total in totals:
        columns = np.array(total)
        middle, low, high = (np.interp(wanted, ends, columns[:, i]) for i in range(3))
        found.append((middle, low, high))
    return found


def time_to_target(
    seconds: Sequence[float], losses: Sequence[float], target: float
) -> float | None:
    """Net seconds at which the loss first is at or below `target`; None if it never is.

    Between two evaluations the loss is taken to fall in a straight line. A loss that rises again
    later changes nothing: a run is stopped when it has reached its target.

    Args:
        seconds: net time of each evaluation, rising, (evaluations,).
        losses: (evaluations,); lower is better.

    >>> time_to_target([0.0, 10.0], [3.0, 1.0], 2.0)
    5.0
    """
    t, y = np.asarray(seconds, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if t.ndim != 1 or t.shape != y.shape or not len(t):
        raise InputError(f"losses: shape is {y.shape}; allowed is that of seconds, {t.shape}")
    if np.isnan(t).any() or np.isnan(y).any() or np.isnan(target):
        raise InputError("losses: a NaN among seconds, losses or target; allowed are numbers")
    if (np.diff(t) < 0).any():
        raise InputError("seconds: they fall; allowed is a rising sequence")
    (found,) = times_to_targets(t[None], y[None], np.array([target]))
    return float(found) if np.isfinite(found) else None


def times_to_targets(seconds: np.ndarray, losses: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`time_to_target` of many courses at once, without its checks; infinite where it is None.

    Args:
        seconds, losses: (courses, evaluations).
        targets: (courses,).
    """
    below = losses <= targets[:, None]
    rows, at = np.arange(len(losses)), below.argmax(1)
    before = np.maximum(at - 1, 0)
    high, low = losses[rows, before], losses[rows, at]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(at == 0, 1.0, (high - targets) / (high - low))
    start = seconds[rows, before]
    return np.where(below.any(1), start + share * (seconds[rows, at] - start), np.inf)
