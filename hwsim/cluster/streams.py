"""The cards that compute a stage together: their streams, and the tasks on them."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.cluster.collectives import seconds, sent_bytes
from hwsim.cluster.costs import Costs, across_bytes
from hwsim.cluster.forms import masks
from hwsim.cluster.machine import Cluster
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.tasks import Tasks

COMPUTE, DATA, TENSOR, SEND, ACROSS = "compute", "data", "tensor", "send", "across"
# What a task waits for: one number for each rank; −1 for nothing.
Ends = tuple[int, ...]


class Stage:
    """Ranks of one stage.

    Tensor-parallel ranks whose shares are alike do the same at the same time: one stands for all.

    Attributes:
        last: of each rank, the task that its next arithmetic follows.
        sums: of each rank, what its next arithmetic waits for beside that; none but behind a
            backward pass, whose last sum of gradients may still be under way.
        sent: of each rank, bytes.
    """

    def __init__(
        self, cluster: Cluster, plan: ParallelPlan, tasks: Tasks, name: str, costs: Sequence[Costs]
    ) -> None:
        self.cluster, self.plan, self.tasks = cluster, plan, tasks
        ranks = max((len(cost.shares) for cost in costs), default=1)
        self.names = [name] if ranks == 1 else [f"{name}.rank-{r}" for r in range(ranks)]
        self.last: Ends = (-1,) * ranks
        self.sums: Ends = ()
        self._computes = [f"{own} {COMPUTE}" for own in self.names]
        self._exchanges = [f"{own} {TENSOR}" for own in self.names]
        self.sent = [0.0] * ranks

    def compute(self, name: str, takes: Sequence[float], waits: Sequence[Ends] = ()) -> Ends:
        """Adds a task on every rank's compute stream; when it ends, by rank."""
        if self.sums:
            waits, self.sums = [*waits, self.sums], ()
        if len(self.names) == 1:  # nearly always, and millions of times in a search
            first = [w[0] for w in waits]
            first.append(self.last[0])
            self.last = (self.tasks.add(self._computes[0], name, takes[0], first),)
        else:
            self.last = tuple(
                self.tasks.add(stream, name, takes[r], (*(w[r] for w in waits), self.last[r]))
                for r, stream in enumerate(self._computes)
            )
        return self.last

    def exchange(self, kind: str, name: str, cost: Costs, number: int, after: Ends) -> Ends:
        """Tensor-parallel sums of activations, or gathers of a part's inputs, one by one; each
        waits for all ranks. When the last one ends, by rank."""
        moved = sent_bytes(kind, cost.part.boundary_bytes, self.plan.tp) * number
        add, takes = self.tasks.add, cost.exchange_s if kind == "all_reduce" else cost.gather_s
        for _ in range(number):
            after = tuple([add(stream, name, takes, after) for stream in self._exchanges])
        self.sent = [sent + moved for sent in self.sent]
        return after

    def collective(
        self, kind: str, name: str, sizes: Sequence[float], waits: Sequence[Ends],
        ranks: int | None = None, apart: int | None = None,
    ) -> Ends:  # fmt: skip
        """Of each rank with those that hold the same share of the layers elsewhere."""
        ranks = self.plan.shard_ranks if ranks is None else ranks
        apart = self.plan.tp if apart is None else apart
        # What crosses the same link takes turns on it.
        inside = self.cluster.link(ranks, apart) is self.cluster.inside
        among_nodes = apart > self.plan.tp and not inside
        stream = ACROSS if among_nodes else TENSOR if self.plan.tp > 1 and inside else DATA
        found = []
        for r, own in enumerate(self.names):
            takes = seconds(self.cluster, kind, sizes[r], ranks, apart)
            self.sent[r] += sent_bytes(kind, sizes[r], ranks)
            found.append(
                self.tasks.add(f"{own} {stream}", f"{kind} {name}", takes, [w[r] for w in waits])
            )
        return tuple(found)

    def send(self, label: str, takes: float, moved: float, way: str) -> Ends:
        """Activations, or their gradients, to the same rank of another stage."""
        self.sent = [sent + moved for sent in self.sent]
        waits = [self.last, self.sums] if self.sums else [self.last]
        return tuple(
            self.tasks.add(f"{own} {SEND}{way}", label, takes, [w[r] for w in waits])
            for r, own in enumerate(self.names)
        )

    def gather(self, cost: Costs, waits: Sequence[Ends]) -> Ends:
        """Adds the gathering of a part's sharded weights; when it ends, by rank."""
        sizes = [cost.of(r).gather_bytes for r in range(len(self.names))]
        return self.collective("all_gather", cost.part.name, sizes, waits)

    def reduce(self, name: str, costs: Sequence[Costs], waits: Sequence[Ends]) -> Ends:
        """Gradients, summed up over all data-parallel ranks."""
        plan, rule = self.plan, self.plan.rule
        sizes = [sum(c.of(r).reduce_bytes for c in costs) for r in range(len(self.names))]
        done = self.collective(rule.after_backward, name, sizes, waits)
        mine = [across_bytes(size, plan) for size in sizes]
        if not any(mine):
            return done
        groups, apart = plan.dp // plan.shard_ranks, plan.tp * plan.shard_ranks
        return self.collective(rule.across, name, mine, [done], groups, apart)

    def forward(self, cost: Costs, waits: Sequence[Ends] = ()) -> Ends:
        """Adds a part's forward pass and its exchanges; when it ends, by rank."""
        shares = [cost.of(r) for r in range(len(self.names))]
        takes = [s.forward_s + s.unpack_s[0] + s.slowed_s[0] for s in shares]
        name = f"forward {cost.part.name}"
        self.compute(name, takes, waits)
        self.last = self.exchange("all_reduce", name, cost, cost.exchanges, self.last)
        return self.last

    def backward(self, cost: Costs, waits: Sequence[Ends] = ()) -> Ends:
        """Adds a part's backward pass and its exchanges; when its weight gradients end, by rank.

        The gradients of products' inputs are summed up beside weight gradients. Where activations
        are shared out along the sequence, inputs are gathered again beside what comes before.
        """
        shares = [cost.of(r) for r in range(len(self.names))]
        takes = [s.backward_s + s.unpack_s[1] + s.slowed_s[1] for s in shares]
        name = f"backward {cost.part.name}"
        if not cost.exchanges:
            return self.compute(name, takes, waits)
        before = self.last
        self.compute(name, [t - s.beside_s for t, s in zip(takes, shares, strict=True)], waits)
        self.last = self.exchange("all_reduce", name, cost, cost.again, self.last)
        ready = []
        if cost.gather_s:
            ready = [self.exchange("all_gather", name, cost, cost.exchanges, before)]
        sums = self.exchange("all_reduce", name, cost, cost.exchanges, self.last)
        self.compute(f"{name}, weights", [s.beside_s for s in shares], ready)
        self.sums = sums
        return self.last

    def update(self, costs: Sequence[Costs], waits: Sequence[Ends]) -> None:
        """The optimizer's step and that of the masks, and what ranks must be told of both."""
        plan, number = self.plan, sum(cost.part.updated_masks for cost in costs)
        grown = any(cost.part.updated_masks and cost.part.dense_gradients() for cost in costs)
        agreed = list(waits)
        for kind, size, ranks in masks.selections(number, plan, dense_gradient=grown):
            takes = seconds(self.cluster, kind, size, ranks)
            moved = sent_bytes(kind, size, ranks)
            agreed = [*agreed, self.last]
            self.last = tuple(
                self.tasks.add(f"{own} {DATA}", f"{kind} thresholds of masks", takes,
                               [w for ends in agreed for w in ends])
                for own in self.names
            )  # fmt: skip
            self.sent = [sent + moved for sent in self.sent]
        every = range(len(self.names))
        self.compute("update", [sum(c.of(r).update_s for c in costs) for r in every], agreed)
        if plan.rule.after_update and plan.dp > 1:
            sizes = [sum(c.of(r).gather_bytes for c in costs) for r in every]
            self.collective(plan.rule.after_update, "weights", sizes, [self.last])
        bits = [sum(c.of(r).mask_bytes for c in costs) for r in every]
        for kind, _, ranks in masks.told(max(bits), plan):
            self.collective(kind, "masks", bits, [self.last], ranks)
