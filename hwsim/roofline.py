"""Closed-form bounds: the oracle that no estimate may beat."""

from __future__ import annotations

from hwsim.workload import Op


def roofline(op: Op, peak_flops: float, bandwidth: float) -> float:
    """Seconds that `op` needs at least, under its mask.

    The larger of its arithmetic at `peak_flops` (FLOP/s) and its compulsory traffic at
    `bandwidth` (bytes/s): activations once, active weights once, no indices.

    Source: Williams, Waterman, Patterson (2009), "Roofline", CACM 52(4), applied to active
    weights only.
    """
    return max(op.flops / peak_flops, op.bytes / bandwidth)
