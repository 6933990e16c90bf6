"""Pipeline parallel: stages of layers, micro-batches one forward and one backward in turn.

Source: Narayanan et al. 2021 (Efficient Large-Scale Language Model Training on GPU Clusters),
section 2.2: 1F1B and its interleaved schedule.
"""

from __future__ import annotations

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
