"""The sizes that the tiled layout is built on; apart, so that reading them loads no compiler."""

from __future__ import annotations

TILE = 256
LANES = (8, 16, 32, 64)


def lanes_for(batch: int) -> int:
    """Samples side by side: 64, or fewer if the batch is small."""
    return next((lanes for lanes in LANES if batch <= lanes), LANES[-1])
