"""How a step is shared out among cards."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from hwsim.errors import InputError, unknown

FORMS = ("ddp", "zero1", "zero2", "zero3", "fsdp", "grad_op")
RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class Plan:
    """Data, tensor and pipeline parallel ranks: their product is the number of cards.

    Attributes:
        form: of the data-parallel ranks: ddp, zero1, zero2, zero3 or fsdp (which is zero3);
            grad_op is fsdp that keeps gathered weights until the backward pass.
        dp, tp, pp: ranks of each kind.
        sequence: whether norms are shared among tensor-parallel ranks too (Korthikanti et al.).
        interleave: chunks of layers a pipeline stage holds.
        micro_batches: a step is made of; each is the workload's batch.
        recompute: of activations in the backward pass.
        values: whether collectives carry active values alone: masks are the same on all ranks.
        gradient_bytes: a weight; 4 where gradients are summed up in float32.
    """

    form: str = "ddp"
    dp: int = 1
    tp: int = 1
    pp: int = 1
    sequence: bool = False
    interleave: int = 1
    micro_batches: int = 1
    recompute: str = "none"
    gradient_bytes: float = 2.0
    values: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(unknown("parallel form", self.form, FORMS))
        if self.recompute not in RECOMPUTE:
            raise InputError(unknown("recompute", self.recompute, RECOMPUTE))
        for name in ("dp", "tp", "pp", "interleave", "micro_batches"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: value is {value!r}; allowed is an integer of at least 1")
        if self.interleave > 1 and self.micro_batches % self.pp:
            raise InputError(
                f"micro_batches: value is {self.micro_batches}; allowed with interleaved stages is "
                f"a multiple of pp = {self.pp}"
            )

    @property
    def cards(self) -> int:
        return self.dp * self.tp * self.pp

    @property
    def sharded(self) -> int:
        """What is shared among data-parallel ranks: 1 moments, 2 gradients too, 3 weights too."""
        return {"ddp": 0, "zero1": 1, "zero2": 2, "grad_op": 2}.get(self.form, 3)

    def __str__(self) -> str:
        words = [self.form]
        words += [f"{n}={getattr(self, n)}" for n in ("dp", "tp", "pp") if getattr(self, n) > 1]
        words += ["sp=1"] if self.sequence else []
        words += [f"v={self.interleave}"] if self.interleave > 1 else []
        words += [f"m={self.micro_batches}"] if self.micro_batches > 1 else []
        words += ["values=1"] if self.values else []
        words += [f"recompute={self.recompute}"] if self.recompute != "none" else []
        return ",".join(words)


_SHORT = {"v": "interleave", "m": "micro_batches", "sp": "sequence"}


def parse_plan(text: str, cards: int) -> Plan:
    """A plan as people write it: "fsdp", "tp=8,pp=2,dp=4", "zero1,tp=8,recompute=full".

    What is left over of the cards is data parallel.

    Raises:
        InputError: an unknown word, or numbers whose product is not `cards`.

    >>> parse_plan("tp=8,pp=2", 64).dp
    4
    """
    given: dict[str, object] = {}
    known = tuple(f.name for f in fields(Plan))
    for word in text.split(","):
        name, equals, value = word.strip().partition("=")
        if not equals:
            given["form"] = name
            continue
        name = _SHORT.get(name, name)
        if name not in known:
            raise InputError(unknown("parallel", name, (*known, *_SHORT, *FORMS)))
        if name in ("form", "recompute"):
            given[name] = value
        elif name == "gradient_bytes":
            given[name] = float(_whole(name, value))
        else:
            whole = _whole(name, value)
            given[name] = bool(whole) if name in ("sequence", "values") else whole
    plan = Plan(**given)  # type: ignore[arg-type]
    if "dp" not in given and cards % (plan.tp * plan.pp) == 0:
        plan = replace(plan, dp=cards // (plan.tp * plan.pp))
    if plan.cards != cards:
        raise InputError(
            f"parallel: dp × tp × pp is {plan.dp} × {plan.tp} × {plan.pp} = {plan.cards}; allowed "
            f"is the number of cards, {cards}"
        )
    return plan


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}: value is {text!r}; allowed is an integer") from None
