"""How a step is shared out among cards."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from hwsim.cluster.data_parallel import FORMS, Form, form, form_names
from hwsim.errors import InputError, unknown

RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class ParallelPlan:
    """Data, tensor and pipeline parallel ranks: their product is the number of cards.

    Attributes:
        form: of the data-parallel ranks: a name of `hwsim.cluster.data_parallel`.
        dp, tp, pp: ranks of each kind.
        sequence: whether norms are shared among tensor-parallel ranks too (Korthikanti et al.).
        interleave: chunks of layers a pipeline stage holds.
        micro_batches: a step is made of; each is the workload's batch.
        recompute: of activations in the backward pass.
        every: n, where only each n-th layer of a stage recomputes; see `hwsim.cluster.recompute`.
        shards: data-parallel ranks among which a share of everything lies, for a form that keeps
            shares within a node; 0 for those of one node, or for all ranks of other forms.
        values: whether collectives carry active values alone: masks are the same on all ranks.
        packed: whether collectives carry 2:4 layers as values and their places (2 bits each), as
            they must where ranks do not know the mask beforehand.
        compact: whether gradients and states are held for active weights alone; weights are
            unpacked a part at a time.
        gradient_bytes: a weight; 4 where gradients are summed up in float32.
        moment_bytes: of the optimizer's state a weight; Adam's 8 in float32, about 2 in 8 bit.
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
    packed: bool = False
    compact: bool = False
    shards: int = 0
    moment_bytes: float = 8.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.form not in form_names():
            FORMS.check(self.form)
        if self.recompute not in RECOMPUTE:
            raise InputError(unknown("recompute", self.recompute, RECOMPUTE))
        for name in ("dp", "tp", "pp", "interleave", "micro_batches", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: value is {value!r}; allowed is an integer of at least 1")
        if self.interleave > 1 and self.micro_batches % self.pp:
            raise InputError(
                f"micro_batches: value is {self.micro_batches}; allowed with interleaved stages is "
                f"a multiple of pp = {self.pp}"
            )
        if self.interleave > 1 and self.pp == 1:
            raise InputError(
                f"interleave: value is {self.interleave}; allowed with pp = 1, which has no "
                "stages, is 1"
            )
        if self.every > 1 and self.recompute == "none":
            raise InputError(
                f"every: value is {self.every}; allowed with recompute=none is 1: nothing does"
            )
        if self.values and self.packed:
            raise InputError("values, packed: both are given; allowed is one of them")
        if self.shards and not self.rule.in_node:
            raise InputError(
                f"shards: value is {self.shards}; allowed with {self.form} is none: all "
                "data-parallel ranks share"
            )
        if self.shards < 0 or (self.shards and self.dp % self.shards):
            raise InputError(
                f"shards: value is {self.shards}; allowed is a divisor of dp = {self.dp}"
            )

    @property
    def rule(self) -> Form:
        """What the form says."""
        return form(self.form)

    @property
    def shard_ranks(self) -> int:
        """Data-parallel ranks that hold one copy of everything between them."""
        return self.shards or self.dp

    @property
    def cards(self) -> int:
        """That the plan takes."""
        return self.dp * self.tp * self.pp

    @property
    def sharded(self) -> int:
        """What is shared among data-parallel ranks: 1 moments, 2 gradients too, 3 weights too."""
        return self.rule.level

    def on(self, cards_per_node: int) -> ParallelPlan:
        """The plan in nodes of so many cards: shares of a hybrid form lie within one.

        Raises:
            InputError: nodes that no number of whole shares fills.
        """
        if not self.rule.in_node or self.shards:
            return self
        mine = max(min(cards_per_node // self.tp, self.dp), 1)
        if self.dp % mine:
            raise InputError(
                f"parallel: {self} shares within nodes of {mine} data-parallel ranks; allowed is "
                f"a multiple of {mine}, or shards=, a divisor of {self.dp}"
            )
        return replace(self, shards=mine)

    def __str__(self) -> str:
        words = [self.form]
        words += [f"{n}={getattr(self, n)}" for n in ("dp", "tp", "pp") if getattr(self, n) > 1]
        words += ["sp=1"] if self.sequence else []
        words += [f"v={self.interleave}"] if self.interleave > 1 else []
        words += [f"m={self.micro_batches}"] if self.micro_batches > 1 else []
        words += ["values=1"] if self.values else []
        words += ["packed=1"] if self.packed else []
        words += ["compact=1"] if self.compact else []
        words += [f"shards={self.shards}"] if self.shards else []
        words += [f"recompute={self.recompute}"] if self.recompute != "none" else []
        words += [f"every={self.every}"] if self.every > 1 else []
        return ",".join(words)


_SWITCHES = ("sequence", "values", "packed", "compact")
_SHORT = {"v": "interleave", "m": "micro_batches", "sp": "sequence"}


def parse_plan(text: str, cards: int) -> ParallelPlan:
    """A plan as people write it: "fsdp", "tp=8,pp=2,dp=4", "zero1,tp=8,recompute=full".

    What is left over of the cards is data parallel.

    Raises:
        InputError: an unknown word, or numbers whose product is not `cards`.

    >>> parse_plan("tp=8,pp=2", 64).dp
    4
    """
    given = plan_words(text)
    others = ParallelPlan(**{n: given[n] for n in ("tp", "pp") if n in given})
    if cards % others.cards == 0:
        given.setdefault("dp", cards // others.cards)
    plan = ParallelPlan(**given)
    if plan.cards != cards:
        raise InputError(
            f"parallel: dp × tp × pp is {plan.dp} × {plan.tp} × {plan.pp} = {plan.cards}; allowed "
            f"is the number of cards, {cards}"
        )
    return plan


def plan_words(text: str) -> dict[str, Any]:
    """The fields of a Plan that are written out.

    Raises:
        InputError: an unknown word, or a value that is no number.
    """
    given: dict[str, Any] = {}
    known = tuple(f.name for f in fields(ParallelPlan))
    for word in text.split(","):
        name, equals, value = word.strip().partition("=")
        if not equals:
            FORMS.check(name)
            given["form"] = name
            continue
        name = _SHORT.get(name, name)
        if name not in known:
            raise InputError(unknown("parallel", name, (*known, *_SHORT, *form_names())))
        if name in ("form", "recompute"):
            given[name] = value
        elif name in ("gradient_bytes", "moment_bytes"):
            given[name] = float(_whole(name, value))
        else:
            whole = _whole(name, value)
            given[name] = bool(whole) if name in _SWITCHES else whole
    return given


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}: value is {text!r}; allowed is an integer") from None
