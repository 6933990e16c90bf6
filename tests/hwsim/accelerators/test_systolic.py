"""Systolic arrays against SCALE-Sim, and what a mask is worth on them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, Workload, gemm, load_device

CASES = json.loads((Path(__file__).parents[2] / "data" / "scalesim.json").read_text())
NO_MEMORY = dict.fromkeys(
    ("dram_bandwidth", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"), math.inf
) | {"dram_latency_s": 0.0}


def array(rows, cols, dataflow, n=1, m=1, **more):
    return load_device(
        "systolic", rows=rows, cols=cols, dataflow=dataflow, sparsity_n=n, sparsity_m=m,
        **(NO_MEMORY | more),
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES["dense"], ids=str)
def test_dense_gemms_take_scalesims_cycles(case):
    m, n, k, dataflow, rows, cols, last = case
    device = array(rows, cols, dataflow)
    assert device.estimate(gemm(m, n, k)).cycles == pytest.approx(last + 1, abs=1e-6)
    assert device.array_cycles(gemm(m, n, k)) == last + 1


@pytest.mark.parametrize("case", CASES["sparse"], ids=str)
def test_n_of_m_gemms_take_scalesims_cycles(case):
    m, n, k, dataflow, rows, cols, ratio, last = case
    kept, of = map(int, ratio.split(":"))
    mask = Mask(np.tile(np.arange(k) % of < kept, (n, 1)))
    device = array(rows, cols, dataflow, kept, of)
    assert device.array_cycles(gemm(m, n, k, mask)) == last + 1


@pytest.mark.parametrize(
    ("dataflow", "total", "stalls"), [("ws", 46779, 41500), ("os", 29803, 26012)]
)
def test_scalesims_user_bandwidth_rows_are_its_array_and_its_own_stalls(dataflow, total, stalls):
    # 64×96×128 on 16×16 cells, InterfaceBandwidth USER, 4 KiB buffers (docs/devices.md has why the
    # stalls are not modelled). What is not stall is the array's.
    assert array(16, 16, dataflow).array_cycles(gemm(64, 96, 128)) == total + 1 - stalls


def test_the_shipped_array_counts_the_folds_beside_memory():
    device = load_device("systolic", rows=8, cols=8, dataflow="ws")
    op = gemm(8, 16, 32)
    assert device.array_cycles(op) == 240
    assert device.estimate(op).cycles >= 240


def test_n_of_m_pays_only_along_the_contraction_of_the_phase():
    device = load_device("systolic")
    rows, columns = np.indices((256, 256))
    along_inputs = Mask(np.tile(np.arange(256) % 4 < 2, (256, 1)))
    transposable = Mask((rows + columns) % 4 < 2)
    kernel = {
        (name, phase): device.estimate(gemm(512, 256, 256, mask, phase)).kernel
        for name, mask in (("rows", along_inputs), ("both", transposable))
        for phase in ("forward", "grad_input", "grad_weight")
    }
    assert kernel == {
        ("rows", "forward"): "2:4", ("rows", "grad_input"): "dense",
        ("rows", "grad_weight"): "dense", ("both", "forward"): "2:4",
        ("both", "grad_input"): "2:4", ("both", "grad_weight"): "dense",
    }  # fmt: skip


def test_a_mask_that_breaks_n_of_m_once_keeps_the_dense_kernel_and_says_why():
    device = load_device("systolic")
    broken = np.tile(np.arange(256) % 4 < 2, (256, 1))
    broken[255, 254] = True
    dense, rejected = device.kernels(gemm(512, 256, 256, Mask(broken)))
    assert dense.kernel == "dense"
    assert rejected.reason == "mask is not 2:4 along its rows"


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 21), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99)
)
def test_the_n_of_m_check_equals_its_definition(rows, columns, n, m, seed):
    from hwsim.patterns.n_m import NM

    n = min(n, m)
    values = np.random.default_rng(seed).random((rows, columns)) < 0.4
    by_row = all(row[g : g + m].sum() <= n for row in values for g in range(0, columns, m))
    by_column = all(col[g : g + m].sum() <= n for col in values.T for g in range(0, rows, m))
    assert NM(n, m, 1).holds(Mask(values)) == by_row
    assert NM(n, m, 0).holds(Mask(values)) == by_column


SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
PHASES = st.sampled_from(["forward", "grad_input", "grad_weight"])


@settings(deadline=None, max_examples=80)
@given(SHAPES, PHASES, st.sampled_from(["ws", "is", "os"]), st.integers(0, 1), st.integers(1, 3))
def test_tiles_move_the_compulsory_bytes_and_both_engines_agree(
    shape, phase, dataflow, chained, arrays
):
    from hwsim.pipeline import fast
    from hwsim.pipeline.reference import simulate

    device = load_device(
        "systolic", rows=16, cols=8, dataflow=dataflow, chained=chained, arrays=arrays,
        weight_buffer_bytes=2.0**15, input_buffer_bytes=2.0**16, output_buffer_bytes=2.0**15,
    )  # fmt: skip
    op = gemm(*shape, phase=phase)
    tiles = device.tiles(op)
    assert tiles.output_bytes.sum() + tiles.input_bytes.sum() + tiles.weight_bytes.sum() >= op.bytes
    run = fast.simulate(device.machine(), tiles)
    assert device.estimate(op).cycles == pytest.approx(
        max(run.cycles, device.roofline(op) * device.clock_hz), rel=1e-9
    )
    if len(tiles) < 200:
        assert simulate(device.machine(), tiles).cycles == run.cycles
    assert all(share <= 1 for share in run.occupancy(device.machine()).values())


@settings(deadline=None, max_examples=60)
@given(SHAPES, PHASES, st.sampled_from(["systolic", "tpu-like", "sigma-like"]))
def test_more_bandwidth_is_never_slower_and_nothing_beats_the_roofline(shape, phase, name):
    op = gemm(*shape, phase=phase)
    seconds = []
    for bandwidth in (1e9, 3e9, 2e10, 4e11, math.inf):
        device = load_device(name, dram_bandwidth=bandwidth)
        estimate = device.estimate(op)
        assert estimate.seconds >= device.roofline(op)
        assert estimate.low_s <= estimate.seconds <= estimate.high_s
        seconds.append(estimate.seconds)
    assert seconds == sorted(seconds, reverse=True)


def test_prefetch_saves_time_but_never_beats_the_sum_of_rooflines():
    ops = Workload(tuple(gemm(512, 512, 512, name=f"layer {i}") for i in range(6)))
    with_it = load_device("systolic", dram_bandwidth=2e11)
    without = load_device("systolic", dram_bandwidth=2e11, prefetch=0)
    summed = sum(without.estimate(op).seconds for op in ops)
    assert without.estimate(ops).seconds == pytest.approx(summed)
    saved = with_it.estimate(ops)
    assert sum(with_it.roofline(op) for op in ops) <= saved.seconds < summed
    assert sum(saved.by_bound.values()) == pytest.approx(saved.seconds)


@pytest.mark.parametrize("name", ["systolic", "tpu-like", "sigma-like"])
@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_the_rule_of_prefetch_is_what_the_pipeline_does_with_the_whole_step(name, density):
    from hwsim.pipeline import fast
    from hwsim.pipeline.tiles import Tiles

    rng = np.random.default_rng(5)
    device = load_device(name, overhead_s=0.0)
    shapes = [(768, 768), (3072, 768), (768, 3072)]
    work = Workload(
        tuple(
            gemm(512, *shape, Mask(rng.random(shape) < density), name=str(shape))
            for shape in shapes
        )
    )
    tiles = Tiles.joined([device.tiles(op) for op in work])
    joined = fast.simulate(device.machine(), tiles).cycles / device.clock_hz
    assert device.estimate(work).seconds == pytest.approx(joined, rel=0.03)


@pytest.mark.parametrize("name", ["systolic", "tpu-like", "sigma-like"])
@pytest.mark.parametrize("kind", ["norm", "optimizer", "loss", "mask_update", "embedding", "pack"])
def test_what_is_no_product_runs_on_the_vector_unit_or_the_host(name, kind):
    device = load_device(name)
    op = Op(kind, "update", "x", dense_flops=10**6, activation_bytes=4 * 10**6)
    kernels = device.kernels(op)
    assert kernels[0].seconds >= device.roofline(op)
    names = {k.kernel for k in kernels}
    assert names == ({"vector select", "host select"} if kind == "mask_update" else {"vector unit"})


def test_many_folds_are_grouped_without_losing_a_cycle():
    device = array(2, 2, "ws")
    op = gemm(9, 200, 300)
    assert len(device.tiles(op)) <= 4096
    assert device.array_cycles(op) == 100 * 150 * (4 + 2 + 9 - 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"rows": 0}, "rows: value is 0"), ({"dataflow": "xs"}, "allowed: ws, is, os"),
     ({"dram_bandwidth": -1}, "dram_bandwidth"), ({"sparsity_n": 3, "sparsity_m": 2}, "at most"),
     ({"row": 3}, "did you mean 'rows'")],
)  # fmt: skip
def test_impossible_specifications_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        load_device("systolic", **overrides)


def test_a_buffer_smaller_than_one_tile_is_a_clear_error():
    device = load_device("systolic", weight_buffer_bytes=100)
    with pytest.raises(InputError, match="weight_buffer_bytes is smaller than tile 0"):
        device.estimate(gemm(64, 512, 512))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4096, 1), (4096, 1, 1), (1, 1, 4096)])
@pytest.mark.parametrize("phase", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
def test_dimensions_of_one_work(shape, phase, dataflow):
    estimate = load_device("systolic", dataflow=dataflow).estimate(gemm(*shape, phase=phase))
    assert 0 < estimate.seconds < 1


def test_the_device_of_the_documentation_loads_and_has_the_published_peak(tmp_path):
    text = (Path(__file__).parents[3] / "docs" / "devices.md").read_text()
    path = tmp_path / "tpu-v1.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])
    device = load_device(path)
    assert 2 * device.macs_per_cycle * device.clock_hz == pytest.approx(92e12, rel=0.01)
    few, many = (gemm(m, 4096, 4096, dtype="int8") for m in (128, 2048))
    assert {device.estimate(op).bound for op in (few, many)} == {"memory"}
    assert load_device(path, dram_bandwidth=180e9).estimate(many).bound == "compute"
