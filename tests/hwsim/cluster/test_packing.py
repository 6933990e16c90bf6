"""2:4 weights on clusters: packed once a step where they may be, and read as they arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_clusters import H100, machine_of, masks_of, step_of

from hwsim import gemm
from hwsim.cluster.costs import costs
from hwsim.cluster.memory import need
from hwsim.cluster.packing import packs
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan
from sparse_train.patterns import projection


def _masked(pattern: str, density: float, rows: int = 65536, width: int = 1024):

    def draw(shape: tuple[int, int]):
        scores = np.random.default_rng(0).random(shape, dtype=np.float32)
        return projection(pattern).project(scores, round(density * shape[0] * shape[1]))

    step = step_of(2, rows, width)
    return step.with_masks(masks_of(step, draw))


def test_how_often_a_weight_is_packed() -> None:
    assert packs(ParallelPlan("ddp", 8)) == 1.0
    assert packs(ParallelPlan("ddp", 8, micro_batches=4)) == 0.25
    assert packs(ParallelPlan("fsdp", 8, micro_batches=4)) == 1.0  # gathered anew each time
    assert packs(ParallelPlan("fsdp", 8, micro_batches=4, packed=True)) == 1 / 32
    assert packs(ParallelPlan("fsdp", 1, micro_batches=4)) == 0.25


def test_one_packing_serves_all_micro_batches() -> None:
    parts = parts_of(_masked("transposable 2:4", 0.5))
    cluster = machine_of()
    once, four = (
        costs(cluster, parts, ParallelPlan("ddp", 8, micro_batches=m), {})[1].of(0) for m in (1, 4)
    )
    up = gemm(65536, 4096, 1024, parts[1].masked()[0].mask, "forward", "bfloat16")
    kernels = {op.name: H100.estimate(op).kernel for op in parts[1].forward if op.mask}
    assert set(kernels.values()) == {"2:4"}
    saved = 2 * 0.75 * H100.pack_seconds(up)  # of two layers of equal size
    assert once.forward_s - four.forward_s == pytest.approx(saved)
    # What rests until the update takes room: all layers, not one part's.
    held = [need(parts, ParallelPlan("ddp", 8, micro_batches=m), H100) for m in (1, 4)]
    assert held[1].packed == pytest.approx(2 * held[0].packed)
    assert held[0].masks == sum(part.weights for part in parts)


def test_what_arrives_packed_is_read_so() -> None:
    parts = parts_of(_masked("transposable 2:4", 0.5))
    share = costs(machine_of(), parts, ParallelPlan("fsdp", 8, packed=True), {})[1].of(0)
    assert share.unpack_s == (0.0, 0.0)
    one_way = parts_of(_masked("2:4", 0.5))
    share = costs(machine_of(), one_way, ParallelPlan("fsdp", 8, packed=True), {})[1].of(0)
    assert share.unpack_s[0] == 0.0 < share.unpack_s[1]  # grad_input is no 2:4 product


def test_kernels_that_read_blocks_leave_nothing_to_unpack() -> None:
    parts = parts_of(_masked("block:128,128", 0.1))
    card = replace(H100)
    plan = ParallelPlan("ddp", 8, compact=True)
    assert costs(machine_of(), parts, plan, {})[1].of(0).unpack_s == (0.0, 0.0)
    with_kernels, without = need(parts, plan, card), need(parts, plan)
    assert with_kernels.indices > 0 and with_kernels.weights < without.weights
    assert with_kernels.weights == 2 * sum(part.nnz for part in parts)
