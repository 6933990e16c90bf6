"""Dense or 2:4 per layer: the answer, its reason, and how `nettime estimate` shows it."""

import dataclasses

import numpy as np
import pytest

from analysis.estimating.layer_answers import answers, label
from hwsim import InputError, Mask, Workload, gemm, load_device
from hwsim.answers.gpu_choice import layer_choices

BOTH_WAYS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
ONE_WAY = np.array([[1, 1, 0, 0]], bool)
PHASES = ("forward", "grad_input", "grad_weight")
SMALL = (
    "estimate",
    "bert-tiny",
    "--batch-size",
    "2",
    "--sequence-length",
    "16",
    "--density",
    "0.5",
)


def answer(rows, n, k, tile, dtype="bfloat16", **settings):
    """The answer of an A100 for one layer of `rows` rows under a mask of `tile`s."""
    dense = Workload(tuple(gemm(rows, n, k, None, p, dtype) for p in PHASES))
    mask = Mask(np.tile(tile, (n // tile.shape[0], k // tile.shape[1])))
    return layer_choices(load_device("a100", **settings), dense, dense.with_masks({"gemm": mask}))[
        0
    ]


def test_a_large_transposable_layer_is_two_four_in_both_directions_and_dense_in_grad_weight():
    found = answer(16384, 4096, 4096, BOTH_WAYS)
    assert found.answer == "2:4" and found.speed_up > 1.1
    assert [p.chosen.kernel for p in found.phases] == ["2:4", "2:4", "dense"]
    for words in (
        "forward: 2:4 is",
        "grad_input: 2:4 is",
        "of packing paid",
        "grad_weight is dense",
    ):
        assert words in found.why


def test_without_transposability_grad_input_says_why_it_is_dense():
    found = answer(16384, 4096, 4096, ONE_WAY)
    assert [p.chosen.kernel for p in found.phases] == ["2:4", "dense", "dense"]
    assert "grad_input: mask is not 2:4 along the outputs (not transposable)" in found.why
    assert answer(16384, 4096, 4096, BOTH_WAYS).speed_up > found.speed_up


def test_packing_that_costs_more_than_the_product_saves_is_named_with_both_figures():
    found = answer(512, 3072, 10240, BOTH_WAYS, packing="library")
    assert found.answer == "dense"
    assert "2:4 saves" in found.why and "packing costs" in found.why


def test_a_product_too_small_for_two_four_says_so():
    found = answer(64, 1024, 1024, BOTH_WAYS)
    assert found.answer == "dense" and "the dense time at this size" in found.why


def test_float32_is_never_two_four_and_the_way_out_is_named():
    found = answer(16384, 4096, 4096, BOTH_WAYS, "float32")
    assert found.answer == "dense" and "give the op dtype tfloat32" in found.why
    assert answer(16384, 4096, 4096, np.eye(2, dtype=bool), "tfloat32").answer == "2:4"
    pairs = answer(16384, 4096, 4096, BOTH_WAYS, "tfloat32")
    assert pairs.answer == "dense" and "mask is not 1:2, which tf32 kernels take" in pairs.why


def test_layers_alike_are_one_entry_and_all_are_counted():
    dense = Workload(
        tuple(gemm(64, 128, 128, None, p, "bfloat16", name=f"b.{i}.up")
              for p in PHASES for i in range(3))
    )  # fmt: skip
    tile = np.tile(BOTH_WAYS, (32, 32))
    masked = dense.with_masks({f"b.{i}.up": Mask(tile) for i in range(3)})
    (found,) = layer_choices(load_device("a100"), dense, masked)
    assert found.layers == ("b.0.up", "b.1.up", "b.2.up")
    assert label(found.layers) == "3 × b.*.up"


def test_only_gpus_answer():
    dense = Workload((gemm(8, 16, 16, None, "forward", "bfloat16"),))
    masked = dense.with_masks({"gemm": Mask(np.tile(ONE_WAY, (16, 4)))})
    assert answers([load_device("ideal")], dense, masked) == {}
    assert set(answers([load_device("ideal"), load_device("h200")], dense, masked)) == {"h200"}
    with pytest.raises(InputError, match="model is 'ideal'; allowed is gpu"):
        layer_choices(load_device("ideal"), dense, masked)


def test_a_layers_step_is_the_sum_of_its_ops():
    found = answer(4096, 1024, 1024, BOTH_WAYS)
    products = sum(p.chosen.seconds for p in found.phases)
    assert found.masked_s > products  # the mask multiply is counted too
    assert found.dense_s == pytest.approx(sum(p.dense.seconds for p in found.phases))
    assert dataclasses.is_dataclass(found)


@pytest.mark.parametrize("spelled", ["2:4", "transposable 2:4", "transposable_2:4", "n_m:2,4"])
def test_estimate_takes_every_spelling_and_answers_per_layer(nettime, spelled):
    shown = nettime(*SMALL, "--pattern", spelled, "--dtype", "bf16", "--device", "h200")
    assert shown.code == 0
    words = " ".join(shown.out.split())
    assert "h200: dense or 2:4, per layer" in words
    assert all(len(line) <= 80 for line in shown.out.splitlines())


def test_estimate_as_json_has_layers_with_phases_and_reasons(nettime):
    found = nettime(*SMALL, "--pattern", "2:4", "--dtype", "float32", "-d", "h200", "--json").json
    layers = found["devices"][0]["layers"]
    assert sum(len(one["layers"]) for one in layers) == found["coverage"]["layers"]
    assert all(one["answer"] == "dense" and "tfloat32" in one["why"] for one in layers)
    assert {p["phase"] for one in layers for p in one["phases"]} == set(PHASES)


def test_an_unknown_dtype_or_pattern_lists_the_valid_ones(nettime):
    for more, says in (
        (("--dtype", "int3"), "bfloat16"),
        (("--pattern", "2/4"), "transposable_n_m"),
    ):
        shown = nettime(*SMALL, *more)
        assert shown.code == 2 and says in shown.err


def v_n_m(n, k, m):
    """The first four of each m columns, of which four rows by turns use two or the others."""
    columns = np.arange(k) % m
    return (columns // 2 == np.arange(n)[:, None] // 4 % 2) & (columns < 4)


def test_a_wide_v_n_m_layer_says_what_each_direction_gains_or_would():
    found = answer(16384, 4096, 4096, v_n_m(128, 32, 16))
    assert found.answer == "v_n_m"
    assert [p.chosen.kernel for p in found.phases] == ["v_n_m", "dense", "v_n_m"]
    for words in ("forward: v_n_m is", "grad_weight: v_n_m is", "(not transposable), v_n_m is 0."):
        assert words in found.why
    assert all(p.v_n_m.legal and not p.v_n_m.verified for p in found.phases)
    assert "grad_weight is dense" not in found.why


def test_a_narrow_v_n_m_layer_stays_with_two_four_and_shows_why():
    found = answer(65536, 4096, 4096, v_n_m(64, 32, 8))
    assert found.phases[0].chosen.kernel == "2:4" and "of packing paid, v_n_m is" in found.why


def test_estimate_answers_for_v_n_m_with_its_price_and_reason(nettime):
    asked = ("--batch-size", "2", "--sequence-length", "16", "--density", "0.25", "--dtype", "bf16")
    for pattern, legal in (("v_n_m:16,2,8", True), ("v_n_m:8,2,8", False)):
        shown = nettime(
            "estimate", "bert-tiny", *asked, "--pattern", pattern, "-d", "h200", "--json"
        )
        layers = shown.json["devices"][0]["layers"]
        for phase in (phase for one in layers for phase in one["phases"]):
            assert (phase["v_n_m_s"] is not None) == legal
            assert legal or "not V:2:M" in phase["v_n_m_reason"]
        assert all((", v_n_m is 0." in one["why"]) == legal for one in layers)
