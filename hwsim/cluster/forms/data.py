"""Data parallel: which collectives the weights and gradients of a part need, and when.

DDP sums gradients up behind the backward pass. ZeRO-1 shares the moments out and gathers the
weights once they are updated; ZeRO-2 leaves each rank its share of the gradients; ZeRO-3 (FSDP)
gathers each part's weights before it is computed, forward and backward.

Source: Rajbhandari et al. 2020 (ZeRO), section 7, for the bytes; Zhao et al. 2023 (PyTorch FSDP),
section 3.3, for what is prefetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.cluster.plan import Plan


@dataclass(frozen=True)
class Collectives:
    """Of one part: kinds of collective, "" for none."""

    before_forward: str
    before_backward: str
    after_backward: str
    after_update: str


def collectives(plan: Plan, *, keep: bool = False) -> Collectives:
    """What a plan's data-parallel ranks exchange.

    Args:
        keep: a part whose gathered weights stay from its forward pass to its backward pass.
    """
    if plan.dp == 1:
        return Collectives("", "", "", "")
    level = plan.sharded
    if level == 0:
        return Collectives("", "", "all_reduce", "")
    if plan.form == "grad_op":
        return Collectives("all_gather", "", "reduce_scatter", "")
    if level < 3:
        return Collectives("", "", "reduce_scatter", "all_gather")
    return Collectives("all_gather", "" if keep else "all_gather", "reduce_scatter", "")
