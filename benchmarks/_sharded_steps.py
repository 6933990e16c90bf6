"""Public FSDP steps as one card's kernels and what runs beside them, for fits and for checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from analysis.steps.models import workload_of
from analysis.steps.record import Step
from hwsim import Op, Workload
from hwsim.calibration.steps import HeldOut, TimedStep, by_constants, fit_steps, parts_of_families
from hwsim.cluster.machine import Cluster, load_cluster
from hwsim.cluster.parts import Part, around_attention, parts_of
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.step import timed
from hwsim.device import Device
from hwsim.devices.gpu import Gpu

MACHINES = {
    "A100-SXM4-80GB": "dgx_a100", "A100-SXM4-40GB": "dgx_a100_40gb",
    "H100-SXM5-80GB": "hgx_h100", "NVIDIA_A100-SXM4-40GB": "dgx_a100_40gb",
    "NVIDIA_H100_80GB_HBM3": "hgx_h100", "NVIDIA_A100-SXM4-80GB": "dgx_a100",
}  # fmt: skip
# What a second of a collective may cost the arithmetic beside it, tried in turn.
SLOWS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
_machines: dict[str, Cluster] = {}
_decoders: dict[tuple, tuple[Workload, list[Part]]] = {}


def machine(name: str) -> Cluster:
    if name not in _machines:
        _machines[name] = load_cluster(name)
    return _machines[name]


def decoder(
    hidden: int, layers: int, heads: int, vocab: int, batch: int, length: int,
    attention: str = "fused", fused_loss: bool = False, dropout: float = 0.0,
    megatron: bool = False,
) -> tuple[Workload, list[Part]]:  # fmt: skip
    """The step of a decoder, and its parts; a fused loss reads its scores once a pass."""
    key = (hidden, layers, heads, vocab, batch, length, attention, fused_loss, dropout, megatron)
    if key not in _decoders:
        sizes = {"hidden": hidden, "layers": layers, "heads": heads, "vocab": vocab,
                 "dropout": dropout}  # fmt: skip
        step = workload_of(Step(
            "decoder", "", "training", batch, 1.0, sizes, length, precision="bfloat16",
            optimizer="adamw", attention=attention,
        ))  # fmt: skip
        if fused_loss:
            step = Workload(tuple(
                replace(op, fused=True) if op.kind == "softmax" else op for op in step
            ))  # fmt: skip
        if megatron:
            step = with_megatrons_kernels(step)
        _decoders[key] = step, parts_of(step)
    return _decoders[key]


def with_megatrons_kernels(step: Workload) -> Workload:
    """A decoder whose mask is the softmax's business, and whose dropout adds to the residual.

    Source: Narayanan et al. 2021 (arXiv 2104.04473), section 4.2: one kernel for scale, mask and
    softmax, one for bias, dropout and sum.
    """
    of_heads = {i for some in around_attention(step.ops) for i in some}
    ops: list[Op] = []
    for i, op in enumerate(step):
        before = ops[-1] if ops else op
        if before.kind == "elementwise" and before.phase == op.phase == "forward" and op.name:
            if op.kind == "softmax":
                ops.pop()  # the mask
            elif op.kind == "elementwise" and before.name == op.name and i not in of_heads:
                ops.pop()
                between = 2 * op.activation_bytes // 3  # one of the sum's three, written and read
                both = before.activation_bytes + op.activation_bytes - between
                op = replace(op, activation_bytes=both)
        ops.append(op)
    return Workload(tuple(ops))


@dataclass(frozen=True)
class Sharded:
    """One row of the set."""

    row: dict[str, Any]

    @property
    def plan(self) -> ParallelPlan:
        row = self.row
        form = "fsdp" if row["sharding"] == "FULL_SHARD" else "grad_op"
        return ParallelPlan(form, row["gpus"], micro_batches=row["grad_accum"],
                    recompute="full" if row["activation_checkpointing"] else "none")  # fmt: skip

    @property
    def seconds(self) -> float:
        """Measured, of one step."""
        row = self.row
        tokens = row["micro_batch"] * row["grad_accum"] * row["seq"]
        return tokens / row["tokens_per_s_per_gpu"]

    @property
    def parts(self) -> list[Part]:
        row = self.row
        # Source: llm-foundry, composer_mpt: the loss is flash-attn's fused one by default.
        return decoder(row["d_model"], row["n_layers"], row["n_heads"], row["vocab"],
                       row["micro_batch"], row["seq"], fused_loss=True)[1]  # fmt: skip

    @property
    def kernels(self) -> Workload:
        """Of one micro-batch on one card, what is recomputed twice."""
        ops = []
        for part in self.parts:
            again = self.plan.recompute == "full" and part.heads
            ops += part.forward * (2 if again else 1) + part.backward
        return Workload(tuple(ops))

    def on(self, device: Device | None = None, slows: float | None = None) -> float:
        """Estimated seconds of one step."""
        cluster = machine(MACHINES[self.row["gpu"]]).of(self.row["gpus"])
        if device is not None:
            cluster = replace(cluster, device=device)
        if slows is not None:
            cluster = replace(cluster, inside=replace(cluster.inside, slows=slows),
                              between=replace(cluster.between, slows=slows))  # fmt: skip
        return timed(cluster, self.parts, self.plan).seconds

    def timed(self, device: Device, slows: float | None = None) -> TimedStep:
        """For a fit: a micro-batch, with what collectives and the update add to its kernels."""
        many, kernels = self.row["grad_accum"], self.kernels
        beside = self.on(device, slows) / many - device.estimate(kernels).seconds
        return TimedStep(kernels, self.seconds / many, self.row["model"], beside)


def fitted(device: Gpu, rows: list[Sharded]) -> tuple[dict[str, float], float]:
    """Constants of the card, and what collectives cost, under which some rows are closest."""
    found = []
    for slows in SLOWS:
        steps = [row.timed(device, slows) for row in rows]
        own = fit_steps(device, steps)
        missed = [abs(h.log_error) for h in by_constants(device, steps, own)]
        found.append((sum(min(m, 0.15) for m in missed), slows, own))
    _, slows, own = min(found, key=lambda f: f[0])
    return own, slows


def held_out_sharded(device: Gpu, rows: list[Sharded], folds: int = 5) -> list[HeldOut]:
    """Each row, priced by a cluster of cards fitted to rows of other models."""
    found: dict[int, HeldOut] = {}
    for part in parts_of_families([r.row["model"] for r in rows], folds):
        own, slows = fitted(device, [r for r in rows if r.row["model"] not in part])
        card = replace(device, step_fit=own)
        for i, row in enumerate(rows):
            if row.row["model"] in part:
                measured = TimedStep(row.kernels, row.seconds, row.row["model"])
                found[i] = HeldOut(measured, row.on(card, slows))
    return [found[i] for i in range(len(rows))]
