"""One measured step of a whole model, and the file it is kept in.

A file is JSON Lines, one step a line, or JSON with a list `rows`. Keys:

    model       what ran: "timm:NAME", "bert", "gpt2", "opt", "decoder", …: see models.py
    arguments   of the model, as its sizes; {} if none
    device      as the measurer calls the card: rtx4090, a100_80gb_pcie, …
    mode        "forward", "forward+backward" or "training" (with the optimizer's step)
    batch       samples
    sequence    tokens a sample, of language models; image: side of the images, of others
    precision   float32, tfloat32, float16, bfloat16, amp-fp16 or amp-bf16
    layout      contiguous or channels_last
    compiled    whether a compiler fused it
    attention   "fused" or "plain": whether attention is one kernel
    optimizer   sgd, sgd_momentum, adam, adamw in one kernel; adamw-foreach as torch runs it by
                default, adamw-unfused parameter by parameter; of training
    pattern     "dense", "2:4" or "transposable 2:4", of all linear layers that kernels take
    seconds     of one step, median
    family      models that share one are never on two sides of a fold
    source      where it is from
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError, unknown
from hwsim.files import replacing
from sparse_train.observing.optimizers import OPTIMIZERS

MODES = ("forward", "forward+backward", "training")
PRECISIONS = ("float32", "tfloat32", "float16", "bfloat16", "amp-fp16", "amp-bf16")
_CHOICES = {
    "mode": MODES, "precision": PRECISIONS, "layout": ("contiguous", "channels_last"),
    "attention": ("fused", "plain"), "optimizer": tuple(OPTIMIZERS),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One measured step; the keys of the file."""

    model: str
    device: str
    mode: str
    batch: int
    seconds: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    image: int = 0
    precision: str = "float32"
    layout: str = "contiguous"
    compiled: bool = False
    attention: str = "fused"
    optimizer: str = "sgd"
    pattern: str = "dense"
    family: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(unknown(name, getattr(self, name), allowed))
        check_number("seconds", self.seconds, above=0)
        check_integer("batch", self.batch, 1)

    @property
    def what(self) -> tuple:
        """All that its Workload depends on."""
        arguments = tuple(sorted(self.arguments.items()))
        return (self.model, arguments, self.mode, self.batch, self.sequence, self.image,
                self.precision, self.layout, self.compiled, self.attention,
                self.optimizer, self.pattern)  # fmt: skip


def step_of(path: Path, number: int, row: Any) -> Step:
    """A row of a file as a Step; an InputError names file, row and key."""
    if not isinstance(row, dict):
        raise InputError(f"steps {path}: row {number} is no table")
    allowed = tuple(f.name for f in fields(Step))
    for key in row:
        if key not in allowed:
            raise InputError(f"steps {path}: row {number}: {unknown('key', key, allowed)}")
    try:
        return Step(**row)
    except (TypeError, InputError) as error:
        raise InputError(f"steps {path}: row {number}: {error}") from None


def write_steps(path: str | Path, steps: Sequence[Step]) -> None:
    """Writes JSON Lines."""
    with replacing(Path(path)) as part:
        part.write_text("".join(json.dumps(asdict(s)) + "\n" for s in steps), encoding="utf-8")
