"""Ops and workloads word by word: what a mutation run found that no other test held."""

import numpy as np
import pytest

from hwsim import InputError, Mask, Op, Workload, gemm
from hwsim.workload import DTYPE_BYTES, KINDS, LAYOUTS, PHASES


def _refusal(**fields):
    with pytest.raises(InputError) as refused:
        Op(**{"kind": "gemm", "phase": "forward", "name": "up", "m": 2, "n": 2, "k": 2, **fields})
    return str(refused.value)


@pytest.mark.parametrize(
    ("field", "allowed"),
    [("kind", KINDS), ("phase", PHASES), ("dtype", tuple(DTYPE_BYTES)), ("layout", LAYOUTS)],
)
def test_a_wrong_word_is_named_by_its_field(field, allowed):
    line = _refusal(**{field: "wrong"})
    assert line.startswith(f"unknown {field} 'wrong'")
    assert allowed[-1] in line


@pytest.mark.parametrize("field", ["m", "n", "k", "count", "window"])
def test_a_size_of_a_product_is_at_least_one(field):
    assert _refusal(**{field: 0}) == (
        f"op 'up': {field}: value is 0; allowed is an integer of at least 1"
    )
    assert _refusal(**{field: True, "name": ""}) == (
        f"op 'gemm': {field}: value is True; allowed is an integer of at least 1"
    )
    assert getattr(Op("gemm", "forward", m=1, n=1, k=1), field) == 1


@pytest.mark.parametrize("field", ["dense_flops", "activation_bytes", "weight_bytes"])
def test_an_amount_is_at_least_nothing(field):
    assert _refusal(**{field: -1}) == (
        f"op 'up': {field}: value is -1; allowed is an integer of at least 0"
    )
    assert getattr(Op("norm", "forward"), field) == 0


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy_become_pythons(kind):
    op = Op(
        "gemm", "forward", m=kind(3), n=kind(1), k=kind(5), dense_flops=kind(7),
        weight_shape=(kind(1), kind(5)),
    )  # fmt: skip
    assert (op.m, op.n, op.k, op.dense_flops, op.weight_shape) == (3, 1, 5, 7, (1, 5))
    assert {type(v) for v in (op.m, op.n, op.k, op.dense_flops, *op.weight_shape)} == {int}


@pytest.mark.parametrize("shape", [(2,), (2, 2, 2), 4, "no"])
def test_a_weight_has_two_sizes(shape):
    assert _refusal(weight_shape=shape) == (
        f"op 'up': weight_shape: value is {shape!r}; allowed is (n_out, n_in) or None"
    )


def test_a_weight_of_no_rows_is_refused():
    assert _refusal(weight_shape=(0, 2)).startswith("weight_shape: value is 0; allowed")
    assert "gemm" in _refusal(weight_shape=(2,), name="")
    assert gemm(1, 1, 1).weight_shape == (1, 1)


def test_a_gemm_names_the_type_that_it_does_not_know():
    with pytest.raises(InputError, match="unknown dtype 'int3'"):
        gemm(2, 2, 2, dtype="int3")


def test_an_op_by_another_name_is_the_op_of_that_layer():
    op = gemm(4, 3, 2, phase="grad_input", name="up", dtype="bfloat16")
    assert op.with_name("down") == gemm(4, 3, 2, phase="grad_input", name="down", dtype="bfloat16")
    assert op.with_name("down").signature == (
        gemm(4, 3, 2, phase="grad_input", name="down", dtype="bfloat16").signature
    )


def test_the_sum_of_two_steps_keeps_what_is_known_of_both():
    op = gemm(2, 2, 2, name="up")
    one = Workload((op,), "one", ("a", "b"), {"fft": 3, "sort": 1}, 10)
    two = Workload((op,), "two", ("b", "c"), {"fft": 4, "scan": 5}, 20)
    both = one + two
    assert both.ops == (op, op)
    assert both.name == "one"
    assert both.unmasked == ("a", "b", "c")
    assert both.unknown == {"fft": 7, "sort": 1, "scan": 5}
    assert both.peak_bytes == (two + one).peak_bytes == 20
    assert (Workload((op,)) + two).name == "two"
    assert one.unknown == {"fft": 3, "sort": 1}


def test_a_phase_alone_has_neither_peak_nor_strange_operators():
    step = Workload((gemm(2, 2, 2), gemm(2, 2, 2, phase="grad_input")), "s", (), {"fft": 3}, 10)
    alone = step.phase("grad_input")
    assert [op.phase for op in alone] == ["grad_input"]
    assert alone.unknown == {}
    assert alone.peak_bytes == 0


@pytest.mark.parametrize(("dense_gradient", "scores"), [(True, 2), (False, 1)])
def test_an_update_reads_its_scores_and_writes_mask_and_values(dense_gradient, scores):
    step = Workload((gemm(4, 16, 10, name="up", dtype="bfloat16"),))
    masked = step.with_masks({"up": Mask(np.eye(16, 10, dtype=bool))})
    update = masked.growth_step(dense_gradient=dense_gradient).ops[-1]
    assert (update.kind, update.phase, update.name, update.dtype) == (
        "mask_update", "update", "up", "bfloat16",
    )  # fmt: skip
    assert update.dense_flops == 2 * 160
    assert update.activation_bytes == scores * 2 * 160 + 160 // 8
    assert update.weight_bytes == 2 * 160


def test_packing_reads_and_writes_the_weight_in_its_own_type():
    step = Workload((gemm(4, 16, 10, name="up", dtype="bfloat16"),))
    (pack,) = [op for op in step.with_masks({"up": Mask(np.eye(16, 10, dtype=bool))})
               if op.kind == "pack"]  # fmt: skip
    assert (pack.dtype, pack.weight_bytes, pack.weight_shape) == ("bfloat16", 2 * 2 * 160, (16, 10))


def test_new_masks_take_the_old_ones_packing_and_update_away():
    step = Workload((gemm(4, 16, 10, name="up"),))
    eye, ones = Mask(np.eye(16, 10, dtype=bool)), Mask(np.ones((16, 10), dtype=bool))
    grown = step.with_masks({"up": eye}).growth_step(dense_gradient=True)
    assert {op.kind for op in grown.with_masks({})} == {"gemm"}
    assert [op.kind for op in grown.with_masks({"up": ones})] == ["gemm", "pack"]


def test_a_step_is_a_table_of_its_operations():
    step = Workload((
        gemm(10, 10, 10, name="up"), Op("norm", "forward", m=2, n=3, activation_bytes=8),
    ), "mine")  # fmt: skip
    table = step.as_table()
    assert table.title == "mine"
    assert Workload(step.ops).as_table().title == "training step"
    assert table.columns == ("operations", "number", "dense", "under masks", "moved")
    assert [row[:3] for row in table.rows] == [
        ("forward gemm", "1", "2.00 kFLOP"), ("forward norm", "1", "0 FLOP"),
        ("whole step", "2", "2.00 kFLOP"),
    ]  # fmt: skip
    assert [row[3:] for row in table.rows] == [
        ("2.00 kFLOP", "1.20 kB"), ("0 FLOP", "8 B"), ("2.00 kFLOP", "1.21 kB"),
    ]  # fmt: skip
    assert repr(step) == "Workload('mine', 2 ops, 2.00 kFLOP, 0 masks)"


def test_a_gemm_is_one_product_of_that_name():
    op = gemm(2, 3, 4)
    assert (op.name, op.count, op.weight_shape) == ("gemm", 1, (3, 4))


@pytest.mark.parametrize(("one", "other"), [(True, False), (False, True)])
def test_a_sum_looks_at_values_where_either_part_does(one, other):
    op = gemm(2, 2, 2)
    assert (Workload((op,), on_values=one) + Workload((op,), on_values=other)).on_values
    assert not (Workload((op,)) + Workload((op,))).on_values


def test_operations_may_come_in_any_collection_and_are_kept_as_a_tuple():
    step = Workload([gemm(2, 2, 2)])
    assert step.ops == (gemm(2, 2, 2),) and type(step.ops) is tuple
    assert hash(step) == hash(Workload((gemm(2, 2, 2),)))


def test_only_products_hold_the_weight_that_a_pack_writes():
    step = Workload((Op("optimizer", "update", "a", weight_bytes=9, weight_shape=(2, 3)),
                     gemm(5, 2, 3, name="a")))  # fmt: skip
    pack = step.with_masks({"a": Mask(np.ones((2, 3), bool))}).ops[-1]
    assert (pack.kind, pack.weight_bytes) == ("pack", 2 * 2 * 3 * 4)


def test_an_operation_of_a_layer_that_holds_no_weight_gets_no_mask():
    bias = Op("elementwise", "forward", "a", dense_flops=10, activation_bytes=80)
    masked = Workload((gemm(5, 2, 3, name="a"), bias)).with_masks(
        {"a": Mask(np.zeros((2, 3), bool))}
    )
    assert masked.ops[0].nnz == 0 and masked.ops[1] == bias and masked.ops[1].mask is None
