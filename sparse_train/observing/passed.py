"""What one op of a graph reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Passed:
    """The tensors of one op: value → bytes. A value is one content of one piece of memory."""

    read: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    fusable: bool = True
    again: int = 0  # bytes that are read a second time, fused or not
    operator: str = ""
