"""Flexible clusters against STONNE, against a count cycle by cycle, and their laws."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, gemm, load_device
from hwsim.accelerators import adder_tree as tree

CASES = json.loads((Path(__file__).parents[2] / "data" / "stonne.json").read_text())
NO_MEMORY = dict.fromkeys(
    ("dram_bandwidth", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"), math.inf
) | {"dram_latency_s": 0.0}


def unit(case):
    return load_device(
        "sigma-like", multipliers=case["num_ms"], distribution_bw=case["dn_bw"],
        reduction_bw=case["rn_bw"], units=1, **NO_MEMORY,
    )  # fmt: skip


def stream(seed: int, count: int) -> np.ndarray:
    """splitmix64 as a counter: the generator of the reference's masks."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def mask_of(case) -> np.ndarray:
    rows, columns, param = case["M"], case["K"], case["param"]
    z = stream(case["seed"], rows * columns).reshape(rows, columns)
    uniform = (z >> np.uint64(11)).astype(np.float64) / 2**53
    if case["kind"] == "skewed_rows":
        return uniform >= np.linspace(*param, rows)[:, None]
    if case["kind"] == "n_m":
        n, m = param
        groups = z.reshape(rows, columns // m, m)
        return (groups.argsort(axis=2).argsort(axis=2) < n).reshape(rows, columns)
    return uniform >= param


def product(case):
    """The stationary operand is the weight: A, or all of B if A streams."""
    if case["dataflow"] == "MK_STR_KN_STA":
        return gemm(case["M"], case["N"], case["K"])
    return gemm(case["N"], case["M"], case["K"], Mask(mask_of(case)))


@pytest.mark.parametrize("case", CASES["rows"], ids=lambda c: f"{c['kind']}-{c['seed']}")
def test_products_take_stonnes_cycles(case):
    mask = mask_of(case)
    # Not stored as bytes of the array: one of these encodings is what was hashed.
    encodings = (mask.astype(np.uint8).tobytes(), np.packbits(mask).tobytes())
    assert case["A_sha256"] in [hashlib.sha256(e).hexdigest()[:16] for e in encodings]
    cycles = unit(case).estimate(product(case)).cycles
    exact = case["num_ms"] == case["dn_bw"]
    assert cycles == pytest.approx(case["cycles"], rel=1e-9 if exact else 0.005)


@pytest.mark.parametrize("case", CASES["excluded"], ids=lambda c: f"{c['kind']}-{c['seed']}")
def test_short_and_empty_rows_that_break_stonne_are_priced(case):
    device, op = unit(case), product(case)
    estimate = device.estimate(op)
    assert op.flops / 2 / case["num_ms"] <= estimate.cycles < 4 * case["M"] * case["N"]
    assert device.facts(op)["clusters"] == np.count_nonzero(op.mask.row_nnz)


def sums_by_the_level(levels: int, begin: int, end: int) -> tuple[int, int]:
    """Port pair and cycles of a cluster, node by node: what `sum_node` shortens."""
    ready = dict.fromkeys(range(begin, end), 0)
    for level in range(levels - 1, -1, -1):
        above: dict[int, int] = {}
        for node, cycle in ready.items():
            above[node >> 1] = max(above.get(node >> 1, 0), cycle + 1)
        for left in range(1, (1 << level) - 1, 2):  # neighbours of different parents
            if left in above and left + 1 in above:
                wide_left = sum(1 for i in ready if i >> 1 <= left)
                wide_right = sum(1 for i in ready if i >> 1 > left)
                low = left == min(above)
                high = left + 1 == max(above)
                if not low and not high:
                    continue
                into, out = (left, left + 1) if wide_left >= wide_right else (left + 1, left)
                above[into] = max(above[into], above.pop(out) + 1)
        if len(above) == 1:
            return level, next(iter(above.values()))
        ready = above
    raise AssertionError("the root sums everything")


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_every_cluster_ends_where_the_node_by_node_count_ends(levels):
    width = 1 << levels
    for begin in range(width):
        for end in range(begin + 1, width + 1):
            level, _, cycles = tree.sum_node(levels, begin, end)
            assert (level, cycles) == sums_by_the_level(levels, begin, end), (begin, end)


@pytest.mark.parametrize("seed", range(40))
def test_the_closed_form_of_a_wave_equals_the_count_cycle_by_cycle(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        clusters = int(rng.integers(2, 24))
        ports = int(rng.integers(1, 17))
        step = int(rng.choice([1, 1, 1, 2, 4]))
        vectors = int(rng.integers(1, 200))
        delays = rng.integers(1, 11, clusters)
        lines = rng.integers(0, ports, clusters)
        scratch = [np.zeros(ports, np.int64) for _ in range(3)]
        fast = tree.wave_cycles(delays, lines, clusters, vectors, step, 4, *scratch)
        assert fast == tree.wave_by_cycles(delays, lines, clusters, vectors, step, 4)


def test_four_equal_clusters_wait_for_each_others_ports():
    device = load_device("sigma-like", multipliers=64, distribution_bw=64, reduction_bw=64, units=1,
                         **NO_MEMORY)  # fmt: skip
    one = device.estimate(gemm(100, 8, 64)).cycles / 8
    four = device.estimate(gemm(100, 32, 16)).cycles / 8
    assert (one, four) == (100 + 10, 2 * 100 + 9)
    assert device.estimate(gemm(100, 32, 16)).bound == "port" or four < 2 * one


MASKS = st.tuples(st.integers(1, 60), st.integers(1, 90), st.floats(0, 1), st.integers(0, 99))


def draw(spec) -> Mask:
    rows, columns, density, seed = spec
    return Mask(np.random.default_rng(seed).random((rows, columns)) < density)


@settings(deadline=None, max_examples=80)
@given(MASKS, st.integers(1, 150), st.sampled_from(["forward", "grad_input", "grad_weight"]),
       st.sampled_from([8, 64]), st.sampled_from([1, 3]))  # fmt: skip
def test_work_and_bytes_are_conserved(spec, m, phase, multipliers, units):
    from hwsim.pipeline import fast
    from hwsim.pipeline.reference import simulate

    mask = draw(spec)
    device = load_device(
        "sigma-like", multipliers=multipliers, distribution_bw=multipliers, units=units,
        reduction_bw=multipliers,
    )  # fmt: skip
    op = gemm(m, *mask.shape, mask, phase)
    estimate = device.estimate(op)
    assert estimate.flops == 2 * m * mask.nnz
    tiles = device.tiles(op)
    moved = tiles.weight_bytes.sum() + tiles.input_bytes.sum() + tiles.output_bytes.sum()
    assert estimate.bytes == moved >= op.bytes
    # A multiplier does at most one product a cycle.
    assert tiles.compute_cycles.sum() * multipliers * units >= m * mask.nnz
    run = fast.simulate(device.machine(), tiles)
    assert simulate(device.machine(), tiles).cycles == run.cycles
    assert all(share <= 1 for share in run.occupancy(device.machine()).values())


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(1, 150))
def test_empty_rows_cost_no_waves_and_masks_never_beat_the_roofline(spec, m):
    mask = draw(spec)
    device = load_device("sigma-like", multipliers=64, distribution_bw=64, reduction_bw=64, units=1)
    padded = np.zeros((2 * mask.shape[0], mask.shape[1]), dtype=bool)
    padded[::2] = mask.array
    wide = Mask(padded)
    for phase in ("forward", "grad_weight"):
        few, many = gemm(m, *mask.shape, mask, phase), gemm(m, *wide.shape, wide, phase)
        assert device.facts(few)["wave_cycles"] == device.facts(many)["wave_cycles"]
        assert device.estimate(few).seconds >= device.roofline(few)


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(1, 150), st.sampled_from(["forward", "grad_input", "grad_weight"]))
def test_a_mask_is_never_slower_than_keeping_every_weight(spec, m, phase):
    device, mask = load_device("sigma-like", units=2), draw(spec)
    masked, plain = gemm(m, *mask.shape, mask, phase), gemm(m, *mask.shape, phase=phase)
    best, other = device.kernels(masked)
    assert {best.kernel, other.kernel} == {
        "dense", "sampled clusters" if phase == "grad_weight" else "clusters"
    }  # fmt: skip
    assert best.seconds <= other.seconds
    assert best.seconds <= device.estimate(plain).seconds
    (dense,) = (e for e in (best, other) if e.kernel == "dense")
    assert (dense.seconds, dense.bytes) == (
        device.estimate(plain).seconds, device.estimate(plain).bytes
    )  # fmt: skip


def test_short_clusters_that_wait_for_ports_lose_to_whole_rows():
    device = load_device(
        "sigma-like", multipliers=64, distribution_bw=64, reduction_bw=64, units=1, **NO_MEMORY
    )
    array = np.random.default_rng(0).random((16, 32)) >= 0.3
    best = device.estimate(gemm(8, 16, 32, Mask(array)))
    assert best.kernel == "dense" and best.rejected[0].kernel == "clusters"
    assert best.flops == 2 * 8 * array.sum()
    thin = gemm(8, 16, 32, Mask(np.random.default_rng(0).random((16, 32)) < 0.3))
    assert device.estimate(thin).kernel == "clusters"


def test_dense_and_full_mask_need_the_same_waves():
    device = load_device("sigma-like")
    full = Mask(np.ones((48, 96), dtype=bool))
    for phase in ("forward", "grad_input", "grad_weight"):
        dense = device.facts(gemm(64, 48, 96, phase=phase))
        assert dense == device.facts(gemm(64, 48, 96, full, phase))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"multipliers": 48}, "multipliers: value is 48; allowed is a power of two"),
     ({"distribution_bw": 256}, "at most multipliers = 128"), ({"units": 0}, "units"),
     ({"reduction_bw": 0}, "reduction_bw"), ({"clock_hz": -1.0}, "clock_hz")],
)  # fmt: skip
def test_impossible_specifications_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        load_device("sigma-like", **overrides)


def test_a_row_longer_than_the_weight_buffer_is_a_clear_error():
    device = load_device("sigma-like", weight_buffer_bytes=64)
    with pytest.raises(InputError, match="weight_buffer_bytes is smaller than tile"):
        device.estimate(gemm(16, 8, 512))


def test_an_empty_mask_costs_only_its_compulsory_traffic():
    device = load_device("sigma-like")
    op = gemm(64, 32, 16, Mask(np.zeros((32, 16), dtype=bool)))
    assert device.facts(op)["waves"] == 0
    assert device.estimate(op).seconds >= op.bytes / device.dram_bandwidth
