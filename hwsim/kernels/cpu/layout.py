"""The sizes that the tiled layout is built on; apart, so that reading them loads no compiler."""

from __future__ import annotations

TILE = 160
"""Columns of a tile: with 64 samples each, 40 KiB of activations."""
CHUNK = 768
"""Rows that go through all tiles together, at most: their sums, 192 KiB, stay in the second-level
cache, and activations that do not are fetched once for all of them."""
LANES = (8, 16, 32, 64)
MOST = (1 << 16) - 1
"""Rows or columns of the kernels for single samples, so that their number fits 16 bits, and that of
weights 32."""
WINDOW = 8
"""Rows that the look-up has side by side, and inputs that it sees at once."""


def lanes_for(batch: int) -> int:
    """Samples side by side: 64, or fewer if the batch is small."""
    return next((lanes for lanes in LANES if batch <= lanes), LANES[-1])


def chunk_for(rows: int, threads: int) -> int:
    """Rows of a chunk: about as many chunks for each thread, none above CHUNK.

    >>> chunk_for(3072, 2)
    768
    """
    each = -(-rows // threads)
    return -(-each // -(-each // CHUNK))
