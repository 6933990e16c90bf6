"""Which results of a step stay on chip for the next op: `fusion = "on_chip"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.accelerators.operands import operand_bytes
from hwsim.workload import PRODUCTS, Op

_PASSES_ON = ("elementwise", "norm", "softmax")  # of these, half is taken to be read, half written


@dataclass(frozen=True)
class Stays:
    """What of an op's traffic does not pass through DRAM: its input, its result."""

    read: bool = False
    written: bool = False

    def spared(self, op: Op) -> int:
        """Bytes of DRAM traffic that the op is spared."""
        if not (self.read or self.written):
            return 0
        taken, given = passed_on(op)
        return self.read * taken + self.written * given


def passed_on(op: Op) -> tuple[int, int]:
    """Bytes of the one activation that an op takes from the op before, and of its result.

    Of a weight's product that is x in forward and dy in grad_input. (0, 0) of ops that take
    several, or whose result no op after it reads.
    """
    if op.phase not in ("forward", "grad_input"):
        return 0, 0
    if op.kind in PRODUCTS and op.weight_bytes:
        first, _, result = operand_bytes(op)
        return first, result
    if op.kind in _PASSES_ON:
        return op.activation_bytes // 2, op.activation_bytes - op.activation_bytes // 2
    return 0, 0


def staying(ops: Sequence[Op], room: float) -> list[Stays]:
    """Of each op of a step, in order, what stays on chip.

    A result stays for the next op if that is of the same phase and reads as many bytes as the
    result has, and if it fits into `room` bytes. Its write is spared where no later op can want it:
    what the backward pass of either op reads again is written all the same. Ops belong together by
    their names; one without a name may be anyone's.
    """
    last = {op.name: at for at, op in enumerate(ops)}
    unnamed = last.get("", -1)
    found = [Stays() for _ in ops]
    for at in range(len(ops) - 1):
        one, other = ops[at], ops[at + 1]
        given = passed_on(one)[1]
        if one.phase != other.phase or not 0 < given <= room or passed_on(other)[0] != given:
            continue
        owners = [other.name] if one.kind in PRODUCTS else [one.name, other.name]
        wanted = max(unnamed, *(last[name] for name in owners)) > at + 1
        found[at] = Stays(found[at].read, not wanted)
        found[at + 1] = Stays(read=True)
    return found
