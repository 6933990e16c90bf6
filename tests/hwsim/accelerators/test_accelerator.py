"""What the accelerators share: every kind of op, all phases, growth steps, bytes and bounds."""

import numpy as np
import pytest

from hwsim import Mask, Op, Workload, gemm, load_device
from hwsim.accelerators.base import operand_bytes, passes

NAMES = ("systolic", "tpu-like", "sigma-like")


def conv(phase: str, groups: int = 1, mask: Mask | None = None) -> Op:
    """3×3, 16 → 32 channels, 4 images of 8×8: its input counts once, not once per window."""
    n, k, m = 32 // groups, 16 // groups * 9, 256
    return Op(
        "conv", phase, "conv", m, n, k, groups, "float32",
        dense_flops=2 * m * n * k * groups, activation_bytes=4 * (256 * 16 + 256 * 32),
        weight_bytes=4 * 32 * k, weight_shape=(32, k), mask=mask,
    )  # fmt: skip


def attention(phase: str = "forward") -> Op:
    """Two products of 128 × 128 × 64 for each of 96 heads, in one op."""
    return Op(
        "attention", phase, "attention", 128, 128, 64, 96, "float32",
        dense_flops=2 * 2 * 128 * 128 * 64 * 96, activation_bytes=4 * 4 * 96 * 128 * 64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "published_flops"),
    [
        ("tpu-like", 123e12 / 2),  # Google Cloud, TPU v3: 123 TFLOP/s for a chip of two cores
        ("sigma-like", 10.8e12 / 0.659),  # Qin et al. 2020: effective, and its share of the peak
    ],
)
def test_the_specification_has_the_published_peak(name, published_flops):
    device = load_device(name)
    assert 2 * device.macs_per_cycle * device.clock_hz == pytest.approx(published_flops, rel=0.01)


def test_operand_bytes_add_up_to_the_compulsory_traffic():
    for phase in ("forward", "grad_input", "grad_weight"):
        for op in (gemm(7, 11, 13, phase=phase), conv(phase), conv(phase, 4), attention(phase)):
            assert sum(operand_bytes(op)) == op.bytes
    assert operand_bytes(gemm(2, 3, 5)) == (2 * 5 * 4, 3 * 5 * 4, 2 * 3 * 4)
    assert operand_bytes(gemm(2, 3, 5, phase="grad_input")) == (2 * 3 * 4, 3 * 5 * 4, 2 * 5 * 4)
    assert operand_bytes(gemm(2, 3, 5, phase="grad_weight")) == (2 * 3 * 4, 2 * 5 * 4, 3 * 5 * 4)


def test_a_fused_attention_is_two_passes():
    assert (passes(attention()), passes(gemm(3, 4, 5))) == (2, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("phase", ["forward", "grad_input", "grad_weight"])
def test_convolutions_groups_and_attention_are_priced_in_every_phase(name, phase):
    device = load_device(name)
    rng = np.random.default_rng(0)
    for op in (
        conv(phase), conv(phase, 4), attention(phase),
        conv(phase, mask=Mask(rng.random((32, 144)) < 0.2)),
        conv(phase, 4, mask=Mask(rng.random((32, 36)) < 0.2)),
    ):  # fmt: skip
        estimate = device.estimate(op)
        assert estimate.seconds >= device.roofline(op)
        assert estimate.low_s <= estimate.seconds <= estimate.high_s
        assert estimate.bytes >= op.bytes
        assert estimate.flops == op.flops
        assert not estimate.verified


def test_a_grouped_columns_mask_counts_each_group_apart():
    device = load_device("sigma-like")
    dense = Mask(np.ones((32, 36), dtype=bool))
    sizes, _ = device.rows(conv("grad_input", 4, dense))
    assert sizes.tolist() == [8] * (4 * 36)
    assert device.facts(conv("grad_input", 4, dense)) == device.facts(conv("grad_input", 4))


@pytest.mark.parametrize("name", NAMES)
def test_a_growth_step_costs_its_dense_gradients_and_the_mask_updates(name):
    device = load_device(name)
    mask = Mask(np.random.default_rng(0).random((512, 512)) < 0.05)
    phases = ("forward", "grad_input", "grad_weight")
    step = Workload(tuple(gemm(1024, 512, 512, mask, p, name="up") for p in phases))
    usual = device.estimate(step).seconds
    sparse = device.estimate(step.growth_step(dense_gradient=False)).seconds
    dense = device.estimate(step.growth_step(dense_gradient=True)).seconds
    assert usual < sparse <= dense
    if name == "sigma-like":
        assert sparse < dense


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_holds_the_price_and_slower_memory_widens_nothing_below_it(name):
    op = gemm(512, 512, 512)
    for bandwidth in (1e9, 1e11, 1e13):
        estimate = load_device(name, dram_bandwidth=bandwidth).estimate(op)
        assert estimate.low_s <= estimate.seconds <= estimate.high_s
        assert estimate.cycles == pytest.approx(
            estimate.seconds * load_device(name).clock_hz, rel=1e-9
        )


def test_a_mask_update_takes_the_faster_of_host_and_vector_unit():
    step = Workload((gemm(8, 512, 512, Mask(np.eye(512, dtype=bool)), name="up"),))
    update = step.growth_step(dense_gradient=False).ops[-1]
    assert load_device("systolic").estimate(update).kernel == "vector select"
    slow = load_device("systolic", vector_lanes=0.01, host_operations=1e15, host_bandwidth=1e15)
    assert slow.estimate(update).kernel == "host select"
    assert slow.estimate(update).seconds >= slow.roofline(update)
