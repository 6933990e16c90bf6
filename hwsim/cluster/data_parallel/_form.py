"""What a form of data parallelism says: what is shared out, and which collectives that takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """Of one part of a model; kinds of collective, "" for none.

    Attributes:
        level: what is shared out among ranks: 0 nothing, 1 the optimizer's state, 2 gradients too,
            3 weights too (Rajbhandari et al. 2020, ZeRO).
        before_forward, before_backward, after_backward, after_update: when they are needed.
        across: behind `after_backward`, of each rank's share, among the ranks of other groups
            that hold the same share.
        in_node: shares lie within one node, and each node holds all of them.
    """

    level: int = 0
    before_forward: str = ""
    before_backward: str = ""
    after_backward: str = ""
    after_update: str = ""
    across: str = ""
    in_node: bool = False


ALONE = Form()
