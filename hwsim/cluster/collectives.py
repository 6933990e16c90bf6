"""How long collectives take: rings over the slowest link that they cross.

Source: Thakur, Rabenseifner, Gropp 2005 (Optimization of Collective Communication Operations in
MPICH), section 4; NCCL's PERFORMANCE.md for bus bandwidth. A sum's latency is that of a tree,
log₂ p; gathers and scatters have rings alone, p − 1 hops (NCCL, src/graph/tuning.cc).
"""

from __future__ import annotations

import math

from hwsim.cluster.machine import Cluster


def sent_bytes(kind: str, size: float, ranks: int) -> float:
    """Bytes that each rank sends: `size` is that of the whole, gathered tensor.

    >>> sent_bytes("all_reduce", 8.0, 4), sent_bytes("all_gather", 8.0, 4)
    (12.0, 6.0)
    """
    if ranks == 1:
        return 0.0
    if kind == "send":
        return size
    once = size * (ranks - 1) / ranks
    return 2.0 * once if kind == "all_reduce" else once


def seconds(cluster: Cluster, kind: str, size: float, ranks: int, apart: int = 1) -> float:
    """Of an all_reduce, all_gather, reduce_scatter or send among `ranks` cards `apart`."""
    if ranks == 1 or size == 0.0:
        return 0.0
    link = cluster.link(ranks, apart)
    rate = link.rate
    if link is cluster.between and kind != "send":
        # A ring for each card of a node, which leaves the node by that card's own link.
        mine = max(cluster.cards_per_node // apart, 1)
        rate = min(cluster.inside.rate, mine * rate) if mine > 1 else rate
    if kind == "send":
        latency = link.latency_s
    elif kind == "all_reduce":
        latency = 2.0 * math.log2(ranks) * link.latency_s
    else:
        nodes = -(-ranks * apart // cluster.cards_per_node)
        latency = (ranks - nodes) * cluster.inside.latency_s + (nodes - 1) * link.latency_s
    return sent_bytes(kind, size, ranks) / rate + latency
