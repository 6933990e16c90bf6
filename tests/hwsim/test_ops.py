"""Operations and workloads: arithmetic, masks and growth steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, Workload, gemm

QUICK = settings(deadline=None, max_examples=40)
PHASES = ("forward", "grad_input", "grad_weight")
SIZES = st.integers(1, 64)


def random_mask(n, k, density, seed=0):
    return Mask(np.random.default_rng(seed).random((n, k)) < density)


def optimizer(name, n, k):
    return Op(
        "optimizer", "update", name, dense_flops=10 * n * k, weight_bytes=28 * n * k,
        weight_shape=(n, k),
    )  # fmt: skip


def step():
    """Two layers of 16 × 8 and 4 × 16, an activation between, one optimizer step each."""
    ops = [gemm(32, 16, 8, phase=p, name="up") for p in PHASES]
    ops.append(Op("elementwise", "forward", "relu", dense_flops=512, activation_bytes=4096))
    ops += [gemm(32, 4, 16, phase=p, name="down") for p in PHASES]
    ops += [optimizer("up", 16, 8), optimizer("down", 4, 16)]
    return Workload(tuple(ops), "two layers")


@QUICK
@given(SIZES, SIZES, SIZES, st.sampled_from(PHASES), st.sampled_from(["float32", "bfloat16"]))
def test_a_gemm_does_two_flops_per_multiply_add_in_every_phase(m, n, k, phase, dtype):
    op = gemm(m, n, k, phase=phase, dtype=dtype)
    size = {"float32": 4, "bfloat16": 2}[dtype]
    assert op.dense_flops == op.flops == 2 * m * n * k
    assert op.bytes == (m * k + m * n + n * k) * size
    assert (op.kind, op.phase, op.weight_shape) == ("gemm", phase, (n, k))
    assert (op.weights, op.nnz, op.density, op.itemsize) == (n * k, n * k, 1.0, size)


@QUICK
@given(SIZES, SIZES, SIZES, st.sampled_from(PHASES), st.floats(0, 1), st.integers(0, 99))
def test_under_a_mask_every_active_weight_has_its_equal_share(m, n, k, phase, density, seed):
    mask = random_mask(n, k, density, seed)
    op = gemm(m, n, k, mask, phase)
    assert op.flops == 2 * m * mask.nnz
    assert op.bytes == 4 * (m * k + m * n + mask.nnz)
    assert (op.nnz, op.density) == (mask.nnz, mask.density)
    assert op.dense_flops == 2 * m * n * k


def test_flops_under_a_mask_are_exact_where_floats_are_not():
    mask = np.zeros((3, 7), bool)
    mask[0, 0] = True
    m = 2**60 + 1
    assert gemm(m, 3, 7, Mask(mask)).flops == 2 * m


def test_a_mask_of_another_shape_is_refused_and_both_shapes_are_named():
    with pytest.raises(InputError, match=r"\(8, 16\).*\(16, 8\)"):
        gemm(4, 16, 8, random_mask(8, 16, 0.5))
    with pytest.raises(InputError, match=r"'up'.*\(4, 4\).*\(16, 8\)"):
        step().with_masks({"up": random_mask(4, 4, 0.5)})
    with pytest.raises(InputError, match=r"\(2, 2\).*None"):
        Op("elementwise", "forward", "relu", mask=random_mask(2, 2, 0.5))


def test_an_array_is_no_mask():
    with pytest.raises(InputError, match=r"type is ndarray; allowed is hwsim\.Mask"):
        gemm(4, 2, 2, np.ones((2, 2), bool))


@pytest.mark.parametrize("name", ["m", "n", "k"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8", None])
def test_sizes_are_integers_of_at_least_one(name, value):
    sizes = {"m": 2, "n": 2, "k": 2} | {name: value}
    with pytest.raises(InputError, match=rf"^{name}: value is .*integer of at least 1"):
        gemm(**sizes)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"kind": "gem"}, "gemm"),
        ({"phase": "backward"}, "grad_input"),
        ({"dtype": "float33"}, "float32"),
    ],
    ids=str,
)
def test_a_word_that_is_not_known_is_answered_with_the_valid_ones(change, valid):
    (wrong,) = change.values()
    with pytest.raises(InputError, match=f"{wrong}.*{valid}"):
        Op(**({"kind": "norm", "phase": "forward"} | change))


def test_a_gemm_has_no_update_phase():
    with pytest.raises(InputError, match="unknown phase 'update'"):
        gemm(2, 2, 2, phase="update")


@pytest.mark.parametrize("name", ["dense_flops", "activation_bytes", "weight_bytes"])
def test_no_op_costs_less_than_nothing(name):
    with pytest.raises(InputError, match=r"'relu'.*at least 0"):
        Op("elementwise", "forward", "relu", **{name: -1})


def test_a_mask_goes_on_three_products_the_optimizer_and_one_pack():
    mask = random_mask(16, 8, 0.25)
    masked = step().with_masks({"up": mask})
    carrying = sorted((op.kind, op.phase) for op in masked if op.mask is mask)
    assert carrying == [
        ("gemm", "forward"), ("gemm", "grad_input"), ("gemm", "grad_weight"),
        ("optimizer", "update"), ("pack", "update"),
    ]  # fmt: skip
    assert all(op.name == "up" for op in masked if op.mask is not None)
    assert len(masked) == len(step()) + 1
    assert masked.masks == {"up": mask}
    assert masked.name == "two layers"


def test_masks_replace_those_that_were_there():
    first, second = random_mask(16, 8, 0.25), random_mask(4, 16, 0.5)
    twice = step().with_masks({"up": first}).with_masks({"down": second})
    assert twice.digest == step().with_masks({"down": second}).digest
    assert sum(op.kind == "pack" for op in twice) == 1
    assert step().with_masks({"up": first}).with_masks({}).digest == step().digest


def test_masking_leaves_the_workload_as_it_was():
    workload = step()
    before = workload.digest
    workload.with_masks({"up": random_mask(16, 8, 0.25)})
    assert workload.digest == before
    assert workload.masks == {}


def test_a_layer_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(InputError, match=r"unknown layer 'upp'.*did you mean 'up'.*down, up"):
        step().with_masks({"upp": random_mask(16, 8, 0.5)})
    with pytest.raises(InputError, match="unknown layer 'relu'"):
        step().with_masks({"relu": random_mask(16, 8, 0.5)})


def test_layers_are_the_maskable_products():
    assert step().layers == {"up": (16, 8), "down": (4, 16)}


@pytest.mark.parametrize("dense", [True, False])
def test_a_growth_step_adds_one_mask_update_per_masked_layer(dense):
    masks = {"up": random_mask(16, 8, 0.25), "down": random_mask(4, 16, 0.5)}
    masked = step().with_masks(masks)
    grown = masked.growth_step(dense_gradient=dense)
    assert sorted(op.name for op in grown if op.kind == "mask_update") == ["down", "up"]
    assert len(grown) == len(masked) + 2
    for op in grown:
        if op.kind == "gemm":
            unmasked = dense and op.phase == "grad_weight"
            assert op.mask is (None if unmasked else masks[op.name])
        if op.kind in ("optimizer", "pack"):
            assert op.mask is masks[op.name]


def test_a_dense_gradient_costs_what_the_masks_had_saved_in_grad_weight():
    masked = step().with_masks({"up": random_mask(16, 8, 0.25)})
    grown = masked.growth_step(dense_gradient=True)
    assert grown.phase("grad_weight").flops == step().phase("grad_weight").flops
    assert grown.phase("forward").flops == masked.phase("forward").flops
    assert masked.growth_step(dense_gradient=False).phase("grad_weight").flops < grown.flops
    updates = [op for op in grown if op.kind == "mask_update"]
    assert [op.dense_flops for op in updates] == [2 * 16 * 8]


def test_without_masks_a_growth_step_is_a_step():
    assert step().growth_step(dense_gradient=True).digest == step().digest


def test_coverage_is_the_share_of_dense_flops_under_masks():
    up, down = 3 * 2 * 32 * 16 * 8, 3 * 2 * 32 * 4 * 16
    whole = up + down + 512 + 10 * (16 * 8 + 4 * 16)
    assert step().coverage == 0.0
    assert step().with_masks({"up": random_mask(16, 8, 0.1)}).coverage == up / whole
    assert step().with_masks({"up": random_mask(16, 8, 0.9)}).coverage == up / whole
    masks = {"up": random_mask(16, 8, 0.5), "down": random_mask(4, 16, 0.5)}
    assert step().with_masks(masks).coverage == (up + down) / whole
    assert Workload(()).coverage == 0.0


def test_a_workload_adds_up_its_ops_and_its_phases():
    workload = step().with_masks({"up": random_mask(16, 8, 0.25)})
    assert workload.flops == sum(op.flops for op in workload.ops)
    assert workload.bytes == sum(op.bytes for op in workload.ops)
    parts = [workload.phase(p) for p in (*PHASES, "update")]
    assert sum(p.flops for p in parts) == workload.flops
    assert (workload + workload).flops == 2 * workload.flops
    assert len(workload + workload) == 2 * len(workload)


def test_the_digest_changes_with_a_mask_alone():
    array = np.random.default_rng(0).random((16, 8)) < 0.5
    moved = array.copy()
    moved[0], moved[1] = array[1], array[0]
    assert (array[0] != array[1]).any()
    one, again, other = (
        step().with_masks({"up": Mask(a)}).digest for a in (array, array.copy(), moved)
    )
    assert one == again
    assert one != other
    assert step().digest not in (one, other)
    assert step().digest == step().digest


@pytest.mark.parametrize(
    "other",
    [gemm(9, 4, 2), gemm(8, 4, 2, phase="grad_input"), gemm(8, 4, 2, name="x")],
    ids=["size", "phase", "name"],
)
def test_the_digest_changes_with_the_op(other):
    assert Workload((gemm(8, 4, 2),)).digest != Workload((other,)).digest


def test_only_ops_make_a_workload():
    with pytest.raises(InputError, match=r"str in ops; allowed is hwsim\.Op"):
        Workload(("gemm",))
