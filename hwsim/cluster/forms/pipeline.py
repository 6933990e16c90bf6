"""Pipeline parallel: stages of layers, micro-batches one forward and one backward in turn.

Source: Narayanan et al. 2021 (Efficient Large-Scale Language Model Training on GPU Clusters),
section 2.2: 1F1B and its interleaved schedule; section 4.1: what tensor-parallel ranks hand on.
"""

from __future__ import annotations

from hwsim.cluster.collectives import seconds, sent_bytes
from hwsim.cluster.machine import Cluster
from hwsim.cluster.plan import ParallelPlan
from hwsim.errors import InputError


def order(stage: int, stages: int, micro_batches: int, chunks: int) -> list[tuple[str, int, int]]:
    """What a stage does in turn: ("F" or "B", micro-batch, chunk).

    >>> [kind + str(m) for kind, m, _ in order(0, 2, 3, 1)]
    ['F0', 'F1', 'B0', 'F2', 'B1', 'B2']
    """
    total = micro_batches * chunks

    def unit(number: int, forward: bool) -> tuple[str, int, int]:
        group, within = divmod(number, stages * chunks)
        chunk, place = divmod(within, stages)
        if chunks == 1:
            return "F" if forward else "B", number, 0
        chunk = chunk if forward else chunks - 1 - chunk
        return "F" if forward else "B", group * stages + place, chunk

    if chunks == 1:
        warm = min(stages - stage - 1, total)
    else:
        warm = min((stages - stage - 1) * 2 + (chunks - 1) * stages, total)
    found = [unit(i, True) for i in range(warm)]
    for i in range(total - warm):
        found += [unit(warm + i, True), unit(i, False)]
    return found + [unit(i, False) for i in range(total - warm, total)]


def bounds(layers: int, stages: int, chunks: int) -> list[tuple[int, int]]:
    """First and last layer (exclusive) of each of stages × chunks pieces, in order.

    Raises:
        InputError: fewer layers than pieces.
    """
    pieces = stages * chunks
    if layers < pieces:
        raise InputError(
            f"pp: {stages} stages of {chunks} chunks are {pieces} pieces; allowed is at most one "
            f"for each of {layers} layers"
        )
    return [(i * layers // pieces, (i + 1) * layers // pieces) for i in range(pieces)]


def handed_on(cluster: Cluster, plan: ParallelPlan, size: float) -> tuple[float, float]:
    """Seconds from a stage to the next one, and bytes that a card sends for it.

    Tensor-parallel ranks all hold what is handed on, `size` bytes, or a share of it each where
    activations are shared out along the sequence. Where that is sooner, ranks that hold it all send
    a share each too, which are gathered on the other side.
    """
    apart = plan.dp * plan.tp
    share = size / plan.tp
    shared = seconds(cluster, "send", share, 2, apart)
    if plan.sequence:
        return shared, share
    whole = seconds(cluster, "send", size, 2, apart)
    gathered = shared + seconds(cluster, "all_gather", size, plan.tp)
    if gathered < whole:
        return gathered, share + sent_bytes("all_gather", size, plan.tp)
    return whole, size
