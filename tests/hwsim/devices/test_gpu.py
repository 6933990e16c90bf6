"""The GPU model: published figures, legality with its reasons, bounds, and bad specifications."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, Workload, device_names, gemm, load_device
from hwsim.devices.gpu import Gpu
from hwsim.gpu.matmul import SPARSE
from hwsim.gpu.rules import Facts, counts_of
from hwsim.patterns.n_m import NM

CARDS = [name for name in device_names() if isinstance(load_device(name), Gpu)]
BOTH_WAYS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
ONE_WAY = np.array([[1, 1, 0, 0]], bool)
PHASES = ("forward", "grad_input", "grad_weight")


def mask_of(tile, n, k):
    return Mask(np.tile(tile, (n // tile.shape[0], k // tile.shape[1])), copy=False)


def gpu(name, **settings) -> Gpu:
    device = load_device(name, **settings)
    assert isinstance(device, Gpu)
    return device


def kernel(device, op, name):
    return next(e for e in device.kernels(op) if e.kernel == name)


# --- published figures, from the data sheet alone ---


def test_a_13008_4096_1024_layer_gains_what_it_was_measured_to_on_a_data_sheet_a100():
    a100 = load_device("a100", fit="none")
    products = [gemm(13008, 4096, 1024, None, p, "bfloat16") for p in PHASES]
    dense = Workload(tuple(products))
    sparse = dense.with_masks({"gemm": mask_of(BOTH_WAYS, 4096, 1024)})
    # 1.661 ms dense, 1.342 ms 2:4: torchao's README on sparse training.
    gain = a100.estimate(dense).seconds / a100.estimate(sparse).seconds
    assert gain == pytest.approx(1.66 / 1.342, abs=0.07)


@pytest.mark.parametrize("card", ["a100", "h100_sxm", "b200"])
@pytest.mark.parametrize("size", [1024, 4096, 8192])
def test_at_batch_one_two_four_loses_once_the_weight_must_be_packed(card, size):
    device = load_device(card, fit="none")
    op = gemm(1, size, size, mask_of(BOTH_WAYS, size, size), "forward", "bfloat16")
    assert kernel(device, op, "2:4").seconds > kernel(device, op, "dense").seconds
    assert device.estimate(op).kernel != "2:4"


def test_kept_descriptors_turn_a_loss_into_a_gain_on_a_data_sheet_h100():
    op = gemm(3072, 3072, 10240, mask_of(BOTH_WAYS, 3072, 10240), "forward", "bfloat16")
    frozen = {"fit": "none", "packing": "never", "step_fit": {"product": 1.0}}
    anew = load_device("h100_sxm", descriptors="per_call", **frozen)
    kept = load_device("h100_sxm", descriptors="cached", **frozen)
    assert kernel(anew, op, "2:4").seconds > kernel(anew, op, "dense").seconds
    assert kernel(kept, op, "2:4").seconds < kernel(kept, op, "dense").seconds
    assert kernel(kept, op, "2:4").seconds == pytest.approx(216e-6, rel=0.25)


def test_gathering_cannot_beat_bf16_tensor_cores_below_95_percent_sparsity_at_batch_256():
    h200, k = load_device("h200"), 4096
    for fan_in, wins in ((k // 10, False), (k // 20, False), (k // 200, True)):
        mask = Mask(np.tile(np.arange(k) < fan_in, (4096, 1)))
        op = gemm(256, 4096, k, mask, "forward", "bfloat16")
        assert (kernel(h200, op, "gather").seconds < kernel(h200, op, "dense").seconds) == wins


# --- packing, transposability, descriptors: each changes the answer ---


def test_packing_every_step_makes_dense_the_answer_where_resting_values_would_gain():
    op = gemm(512, 3072, 10240, mask_of(BOTH_WAYS, 3072, 10240), "forward", "bfloat16")
    assert load_device("a100", packing="never").estimate(op).kernel == "2:4"
    assert load_device("a100", packing="library").estimate(op).kernel == "dense"
    assert load_device("a100", packing="fused").estimate(op).kernel == "dense"


def test_only_a_transposable_mask_gains_in_grad_input_and_the_reason_is_given():
    a100 = load_device("a100")
    ops = [
        gemm(8192, 4096, 4096, mask_of(tile, 4096, 4096), "grad_input", "bfloat16")
        for tile in (BOTH_WAYS, ONE_WAY)
    ]
    assert [a100.estimate(op).kernel for op in ops] == ["2:4", "dense"]
    refused = kernel(a100, ops[1], "2:4")
    assert not refused.legal and "not transposable" in refused.reason
    assert refused in a100.estimate(ops[1]).rejected


def test_grad_weight_is_dense_whatever_the_mask():
    op = gemm(8192, 4096, 4096, mask_of(BOTH_WAYS, 4096, 4096), "grad_weight", "bfloat16")
    assert load_device("a100").estimate(op).kernel == "dense"
    assert "two dense operands" in kernel(load_device("a100"), op, "2:4").reason


def test_a_plan_per_call_costs_exactly_its_time():
    op = gemm(4096, 4096, 4096, mask_of(BOTH_WAYS, 4096, 4096), "forward", "bfloat16")
    kept, anew = gpu("h100"), gpu("h100", descriptors="per_call")
    more = kernel(anew, op, "2:4").seconds - kernel(kept, op, "2:4").seconds
    assert more == pytest.approx(kept.descriptor_s)


def test_fused_packing_of_a_transposable_weight_is_shared_by_both_directions():
    free, fused = load_device("a100", packing="never"), load_device("a100")

    def cost(tile):
        op = gemm(4096, 4096, 1024, mask_of(tile, 4096, 1024), "forward", "bfloat16")
        return kernel(fused, op, "2:4").seconds - kernel(free, op, "2:4").seconds

    assert cost(ONE_WAY) == pytest.approx(2 * cost(BOTH_WAYS))
    assert cost(ONE_WAY) == pytest.approx(85e-6, rel=0.25)  # the published figure


# --- legality ---


@pytest.mark.parametrize(
    ("n", "k", "dtype", "says"),
    [
        (24, 64, "bfloat16", "weight is 24×64; cuSPARSELt takes multiples of 16×16"),
        (64, 24, "float16", "weight is 64×24"),
        (48, 64, "int8", "multiples of 32×32 in int8"),
        (48, 64, "tfloat32", "CUTLASS takes multiples of 32×32"),
        (64, 64, "float32", "give the op dtype tfloat32"),
        (64, 64, "float64", "no 2:4 kernel for float64"),
    ],
)
def test_sizes_and_types_that_two_four_cannot_take_fall_back_and_say_why(n, k, dtype, says):
    op = gemm(64, n, k, mask_of(BOTH_WAYS, n, k), "forward", dtype)
    found = load_device("a100")
    assert found.estimate(op).kernel != "2:4"
    assert says in kernel(found, op, "2:4").reason


def test_a_two_four_mask_that_is_not_one_of_two_runs_dense_in_tf32_and_says_why():
    a100 = load_device("a100")
    turns = np.array([[1, 0], [0, 1]], bool)
    for tile, legal in ((BOTH_WAYS, False), (turns, True)):
        for phase in ("forward", "grad_input"):
            op = gemm(8192, 4096, 4096, mask_of(tile, 4096, 4096), phase, "tfloat32")
            found = kernel(a100, op, "2:4")
            assert found.legal == legal
            assert legal or "mask is not 1:2, which tf32 kernels take" in found.reason
            assert kernel(a100, dataclasses.replace(op, dtype="bfloat16"), "2:4").legal


def test_rows_are_padded_to_the_alignment_and_the_padding_is_charged():
    a100, mask = load_device("a100"), mask_of(BOTH_WAYS, 4096, 4096)
    at = {
        m: kernel(a100, gemm(m, 4096, 4096, mask, "forward", "bfloat16"), "2:4").seconds
        for m in (4089, 4096, 4097)
    }
    assert at[4089] == at[4096]
    assert at[4097] > at[4096]


def test_an_algorithm_that_nobody_searched_pays_for_whole_waves_of_large_tiles():
    mask = mask_of(BOTH_WAYS, 768, 4096)
    op = gemm(4096, 768, 4096, mask, "forward", "float16")
    searched, default = (
        load_device("rtx3090", packing="never", algorithm=a) for a in ("searched", "default")
    )
    assert kernel(default, op, "2:4").seconds > kernel(searched, op, "2:4").seconds
    assert kernel(default, op, "dense").seconds > kernel(searched, op, "dense").seconds


def test_a_mask_that_is_not_two_four_names_the_direction():
    mask = Mask(np.ones((64, 64), bool))
    for phase, says in (("forward", "along the inputs"), ("grad_input", "along the outputs")):
        op = gemm(64, 64, 64, mask, phase, "bfloat16")
        assert says in kernel(load_device("a100"), op, "2:4").reason


def test_gather_wants_equal_counts_and_block_wants_blocks():
    a100 = load_device("a100")
    uneven = np.zeros((64, 64), bool)
    uneven[:32, :3], uneven[32:, :5] = True, True
    op = gemm(8, 64, 64, Mask(uneven), "forward", "bfloat16")
    assert "same number" in kernel(a100, op, "gather").reason
    assert "blocks" in kernel(a100, op, "block").reason
    blocks = np.kron(np.eye(4), np.ones((16, 16))).astype(bool)
    op = gemm(8, 64, 64, Mask(blocks), "forward", "bfloat16")
    assert kernel(a100, op, "gather").legal and kernel(a100, op, "block").legal
    empty = gemm(8, 64, 64, Mask(np.zeros((64, 64), bool)), "forward", "bfloat16")
    assert "no active weight" in kernel(a100, empty, "gather").reason
    assert kernel(a100, empty, "csr").legal


def test_uneven_rows_slow_csr_down():
    a100 = load_device("a100")
    even, uneven = np.zeros((2, 256, 256), bool)
    even[:, :16] = True
    uneven[::32, :] = True
    uneven[1::32, :256] = True
    assert even.sum() == uneven.sum()
    at = [
        kernel(a100, gemm(4096, 256, 256, Mask(m), "forward", "bfloat16"), "csr")
        for m in (even, uneven)
    ]
    assert at[1].seconds > at[0].seconds
    assert at[1].bound == "imbalance"


# --- laws ---


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 13), st.integers(1, 33), st.floats(0, 1), st.integers(0, 99))
def test_the_fast_two_four_check_is_the_patterns_own(n, k, density, seed):
    mask = Mask(np.random.default_rng(seed).random((n, k)) < density)
    facts = Facts(mask, {})
    assert facts.along_inputs == mask.satisfies(NM(2, 4, 1))
    assert facts.along_outputs == mask.satisfies(NM(2, 4, 0))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_tf32_kernels_take_one_of_two_and_the_others_two_of_four(n, k, density, seed):
    mask = Mask(np.random.default_rng(seed).random((n, k)) < density)
    facts = Facts(mask, {})
    assert facts.along("tfloat32") == tuple(mask.satisfies(NM(1, 2, axis)) for axis in (1, 0))
    for dtype in ("bfloat16", "int8"):
        assert facts.along(dtype) == tuple(mask.satisfies(NM(2, 4, axis)) for axis in (1, 0))
    assert facts.transposable("tfloat32") == all(facts.along("tfloat32"))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 13), st.integers(1, 4), st.integers(0, 1), st.integers(0, 999))
def test_one_weight_too_many_anywhere_is_found(n, eights, axis, seed):
    rng = np.random.default_rng(seed)
    array = np.tile(BOTH_WAYS, (4, 2 * eights))[:n, : 8 * eights]
    array[rng.integers(n), rng.integers(array.shape[1])] = True
    mask = Mask(array)
    facts = Facts(mask, {})
    found = facts.along_inputs if axis else facts.along_outputs
    assert found == mask.satisfies(NM(2, 4, axis))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PHASES), st.sampled_from(["shifted", "blocks", "random"]), st.integers(0, 9))
def test_a_price_does_not_depend_on_the_masks_asked_about_before(phase, kind, seed):
    rng = np.random.default_rng(seed)
    first = np.tile(BOTH_WAYS, (16, 16))
    other = {
        "shifted": np.roll(first, 2, axis=1),
        "blocks": np.kron(np.eye(4), np.ones((16, 16))).astype(bool),
        "random": rng.random((64, 64)) < 0.5,
    }[kind]
    warm = load_device("a100")
    ops = [gemm(512, 64, 64, Mask(m), phase, "bfloat16") for m in (first, other)]
    warm.estimate(ops[0])
    again = gemm(512, 64, 64, Mask(other), phase, "bfloat16")
    assert warm.kernels(ops[1]) == load_device("a100").kernels(again)


def test_counts_of_rows_know_the_fullest_the_groups_and_whether_they_are_equal():
    def rows(*counts):
        return Mask(np.arange(3) < np.array(counts)[:, None])

    assert counts_of(rows(0, 3, 3), 0) == (3, 16.0, True)
    assert counts_of(rows(*[2] * 64), 0) == (2, 1.0, True)
    assert counts_of(rows(1, 2), 0) == (2, pytest.approx(64 / 3), False)
    assert counts_of(rows(1, 2), 1) == (2, pytest.approx(64 / 3), False)
    assert counts_of(rows(0, 0), 0) == (0, 1.0, False)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(CARDS), st.integers(1, 9000), st.integers(1, 400), st.integers(1, 400),
    st.sampled_from(PHASES), st.sampled_from(["bfloat16", "float16", "int8", "float32"]),
    st.sampled_from(["two-four", "random", "none"]), st.integers(0, 9),
)  # fmt: skip
def test_no_kernel_beats_the_roofline_and_every_interval_holds_its_estimate(
    card, m, n, k, phase, dtype, masked, seed
):
    device = load_device(card)
    mask = None
    if masked == "two-four":
        mask = Mask(np.tile(BOTH_WAYS, (-(-n // 4), -(-k // 4)))[:n, :k])
    elif masked == "random":
        mask = Mask(np.random.default_rng(seed).random((n, k)) < 0.3)
    op = gemm(m, n, k, mask, phase, dtype)
    for e in device.kernels(op):
        if e.legal:
            assert e.seconds >= device.roofline(op)
            assert 0 < e.low_s <= e.seconds <= e.high_s
        else:
            assert e.reason


@pytest.mark.parametrize("card", CARDS)
def test_more_rows_never_take_much_less_time(card):
    device = load_device(card)
    times = [
        device.estimate(gemm(2**m, 4096, 4096, None, "forward", "bfloat16")).seconds
        for m in range(4, 17)
    ]
    assert all(b > 0.9 * a for a, b in itertools.pairwise(times))


def test_eager_calls_follow_no_faster_than_the_host_makes_them():
    small, large = (gemm(m, 512, 512, None, "forward", "bfloat16") for m in (8, 65536))
    graph, eager = gpu("h100"), gpu("h100", launch="eager")
    assert graph.estimate(small).seconds < eager.estimate(small).seconds == eager.eager_s
    assert graph.estimate(large).seconds == eager.estimate(large).seconds


def test_an_unmeasured_card_has_a_wider_interval_than_a_measured_one():
    op = gemm(4096, 4096, 4096, None, "forward", "bfloat16")
    own, none = (load_device("h100", fit=f).estimate(op) for f in ("own", "none"))
    derived = load_device("h200").estimate(op)
    assert own.verified and not none.verified and not derived.verified

    def width(e):
        return e.high_s / e.low_s

    assert width(own) < width(derived)
    assert width(own) < width(none)


def test_kernels_without_a_measurement_are_unverified():
    blocks = Mask(np.kron(np.eye(4), np.ones((32, 32))).astype(bool))
    op = gemm(64, 128, 128, blocks, "forward", "bfloat16")
    verified = {e.kernel: e.verified for e in load_device("a100").kernels(op) if e.legal}
    assert verified == {"dense": True, "csr": False, "gather": False, "block": False}


def test_a_whole_step_counts_packing_optimizer_and_attention():
    layer = [gemm(1024, 768, 768, None, p, "bfloat16", name="l") for p in PHASES]
    rest = [
        Op("attention", "forward", "a", 128, 128, 64, 96, "bfloat16", 4 * 96 * 128 * 128 * 64,
           4 * 96 * 128 * 64 * 2),
        Op("optimizer", "update", "l", dtype="float32", weight_bytes=768 * 768 * 20,
           weight_shape=(768, 768)),
        Op("norm", "forward", "n", dtype="bfloat16", activation_bytes=1024 * 768 * 4),
    ]  # fmt: skip
    step = Workload(tuple(layer + rest)).with_masks({"l": mask_of(BOTH_WAYS, 768, 768)})
    a100 = load_device("a100")
    parts = a100.breakdown(step)
    assert [op.kind for op, _ in parts] == ["gemm"] * 3 + ["attention", "optimizer", "norm", "pack"]
    assert all(e.seconds > 1e-6 for _, e in parts)
    assert a100.estimate(step).seconds == pytest.approx(sum(e.seconds for _, e in parts))


def test_a_convolution_runs_dense_and_says_why_not_two_four():
    mask = mask_of(BOTH_WAYS, 64, 576)
    op = Op("conv", "forward", "c", 1024, 64, 576, 1, "bfloat16", 2 * 1024 * 64 * 576, 10**6,
            64 * 576 * 2, (64, 576), mask)  # fmt: skip
    found = load_device("a100").estimate(op)
    assert found.kernel == "dense" and not found.verified
    assert "no 2:4 kernel for conv" in kernel(load_device("a100"), op, "2:4").reason


# --- bad input ---


def test_a_type_without_a_peak_is_refused():
    with pytest.raises(InputError, match="dtype is 'float8'; allowed: bfloat16"):
        load_device("a100").estimate(gemm(8, 8, 8, None, "forward", "float8"))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"half.0": [1.0]}, "has 1 numbers; allowed: 27"),
        ({"quarter.0": [1.0] * 27}, "key 'quarter.0'"),
        ({"half.first": [1.0] * 27}, "key 'half.first'"),
        ({"half.0": [-1.0] * 27, "half.spread": [-0.1, 0.1]}, "not above 0"),
        ({"half.0": [1.0] * 27}, "needs 'half.0' and 'half.spread'"),
        ({"half.0": 3.0}, r"allowed is a table name → \[numbers\]"),
        ({"half.0": ["x"]}, "value is 'x'"),
    ],
)
def test_a_broken_fit_is_refused_and_named(table, says):
    with pytest.raises(InputError, match=says):
        load_device("h100", dense_fit=table)


def test_a_fit_that_is_promised_must_be_there():
    with pytest.raises(InputError, match="fit is 'own' but no fit is given"):
        load_device("v100", fit="own")
    with pytest.raises(InputError, match="own, derived, none"):
        load_device("h100", fit="mine")


@pytest.mark.parametrize("name", ["v100", "v100_sxm", "t4", "mi210", "mi250"])
def test_cards_without_sparse_units_are_offered_none(name):
    mask = Mask(np.tile(np.array([True, True, False, False]), (256, 64)))
    op = gemm(256, 256, 256, mask, dtype="float16")
    (found,) = [e for e in load_device(name).price(op) if e.kernel == SPARSE]
    assert not found.legal and "no 2:4 tensor cores" in found.reason
    (there,) = [e for e in load_device("a100").price(op) if e.kernel == SPARSE]
    assert there.legal


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["a100", "h200", "b200", "rtx5090"])
def test_a_matrix_times_a_vector_reads_the_matrix_once(name, dtype):
    gpu = load_device(name)
    read_s = 8192 * 8192 * (4 if dtype == "float32" else 2) / gpu.dram_bytes_per_s
    for op in (gemm(1, 8192, 8192, dtype=dtype), gemm(8192, 1, 8192, dtype=dtype)):
        assert gpu.estimate(op).seconds < 2.0 * read_s + 1e-5
    one, two = (gpu.estimate(gemm(m, 8192, 8192, dtype=dtype)).seconds for m in (1, 2))
    assert one <= two
