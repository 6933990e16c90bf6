import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, gemm, load_device
from hwsim.calibration.cpu import fit_cpu, kernel_of, relative_errors, specification
from hwsim.calibration.dispatch import calibrate
from hwsim.calibration.measure_cpu import measure_cpu
from hwsim.cpu.costs import KERNEL_TERMS, TERMS, expected_lines, lookup_steps, terms, weight_lines
from hwsim.kernels.cpu import LINEAR
from hwsim.measured.cpu_cases import PATTERNS, CpuCase, drawn_cases, drawn_mask
from hwsim.measured.record import Measurement

DEVICES = ("zen3", "zen4")


def mask_of(density, shape=(64, 96), seed=0):
    return Mask(np.random.default_rng(seed).random(shape) < density)


@pytest.mark.parametrize("name", DEVICES)
@settings(deadline=None, max_examples=60)
@given(
    m=st.sampled_from([1, 3, 8, 64, 300]),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    phase=st.sampled_from(["forward", "grad_input", "grad_weight"]),
)
def test_no_estimate_beats_the_roofline_or_leaves_its_interval(name, m, density, phase):
    device = load_device(name)
    op = gemm(m, 64, 96, mask_of(density), phase)
    for estimate in device.kernels(op):
        if estimate.legal:
            assert estimate.seconds >= device.roofline(op)
            assert estimate.low_s <= estimate.seconds <= estimate.high_s
        else:
            assert estimate.reason


@pytest.mark.parametrize("name", DEVICES)
def test_fewer_weights_never_take_longer(name):
    device = load_device(name)
    shape = (768, 768)
    order = np.random.default_rng(0).random(shape)
    for phase in ("forward", "grad_input", "grad_weight"):
        seconds = [
            device.estimate(gemm(256, *shape, Mask(order < density), phase)).seconds
            for density in (0.01, 0.05, 0.1, 0.3, 1.0)
        ]
        assert seconds == sorted(seconds)


@pytest.mark.parametrize("name", DEVICES)
def test_the_sparse_kernel_wins_at_ninety_percent_and_dense_at_none(name):
    device = load_device(name)
    sparse = device.estimate(gemm(256, 768, 768, mask_of(0.1, (768, 768))))
    assert sparse.kernel == "tiled"
    assert {e.kernel for e in sparse.rejected} == {
        "dense", "gather", "csr", "lookup", "two_four", "narrower",
    }  # fmt: skip
    assert device.estimate(gemm(256, 768, 768, mask_of(1.0, (768, 768)))).kernel == "dense"
    assert device.estimate(gemm(1, 768, 768, mask_of(0.1, (768, 768)))).kernel == "lookup"


def test_every_modelled_kernel_exists():
    device = load_device("zen3")
    found = set()
    for phase in ("forward", "grad_input", "grad_weight"):
        found |= {e.kernel for e in device.kernels(gemm(64, 64, 96, mask_of(0.1), phase))}
    assert found <= set(LINEAR.names())
    assert {term for used in KERNEL_TERMS.values() for term in used} <= set(TERMS)


def test_a_lookup_is_faster_where_rows_have_their_weights_side_by_side():
    """As many weights in all, in steps of which every lane is used."""
    places = np.random.default_rng(0).random((768, 96, 8)).argsort(axis=2)
    aligned = Mask((places < 1).reshape(768, 768))
    random = Mask(np.random.default_rng(1).permuted(aligned.array, axis=1))
    for name in DEVICES:
        device = load_device(name)
        even, uneven = (device.estimate(gemm(1, 768, 768, mask)) for mask in (aligned, random))
        assert even.kernel == uneven.kernel == "lookup"
        assert even.seconds < uneven.seconds
    assert 8 * lookup_steps(aligned, "forward") == aligned.nnz


def test_a_lookup_is_not_counted_for_large_batches():
    op = gemm(9, 768, 768, mask_of(0.1, (768, 768)))
    rejected = load_device("zen3").estimate(op).rejected
    assert next(e for e in rejected if e.kernel == "lookup").reason.startswith("batch is 9;")
    with pytest.raises(InputError, match="steps: value is 0; allowed is the mask's"):
        terms("lookup", "forward", 1, 8, 8, 3)


def test_a_mask_with_two_of_four_has_its_kernel():
    order = np.random.default_rng(0).random((768, 192, 4)).argsort(axis=2)
    op = gemm(1, 768, 768, Mask((order < 2).reshape(768, 768)))
    assert load_device("zen3").estimate(op).kernel == "two_four"
    assert any(e.kernel == "two_four" and e.legal for e in load_device("zen4").kernels(op))
    rejected = load_device("zen3").estimate(gemm(1, 768, 768, mask_of(0.1, (768, 768)))).rejected
    assert "every 4 inputs" in next(e for e in rejected if e.kernel == "two_four").reason


def test_a_narrower_layer_is_priced_as_one():
    kept = np.zeros((512, 512), bool)
    kept[:256, :256] = True
    op = gemm(256, 512, 512, Mask(kept))
    device = load_device("zen3")
    best = device.estimate(op)
    assert best.kernel == "narrower"
    dense = next(e for e in best.rejected if e.kernel == "dense")
    assert 2 < dense.seconds / best.seconds < 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["zen3", "zen4"])
def test_16_bit_products_are_float32_ones_and_their_conversion(name, dtype):
    device = load_device(name)
    for phase in ("forward", "grad_input", "grad_weight"):
        for mask in (None, mask_of(0.1, (512, 256))):
            half, single = (device.kernels(gemm(128, 512, 256, mask, phase, d))
                            for d in (dtype, "float32"))  # fmt: skip
            assert {e.kernel for e in half} == {e.kernel for e in single}
            by_name = {e.kernel: e for e in single if e.legal}
            added = {round(e.seconds - by_name[e.kernel].seconds, 12) for e in half if e.legal}
            assert len(added) == 1 and added.pop() > 0
            assert not any(e.verified for e in half if e.legal)
    product = gemm(128, 512, 256, dtype=dtype)
    assert device.estimate(product).bytes == product.bytes


def test_other_dtypes_and_kinds_say_why():
    device = load_device("zen3")
    with pytest.raises(InputError, match="dtype is float8"):
        device.estimate(gemm(8, 8, 8, dtype="float8"))
    conv = Op("conv", "forward", "c", 8, 64, 96, 1, "float32", 8 * 64 * 96 * 2, 1000, 64 * 96 * 4,
              (64, 96), mask_of(0.1))  # fmt: skip
    best = device.estimate(conv)
    assert best.kernel == "dense"
    assert all("linear layers" in e.reason for e in best.rejected)


def test_attention_runs_at_its_share_of_the_dense_rate():
    op = Op("attention", "forward", "a", 64, 64, 64, 96, "float32", 96 * 64**3 * 2, 1 << 16)
    whole = load_device("zen3", attention_share=1.0).estimate(op)
    half = load_device("zen3", attention_share=0.5).estimate(op)
    assert half.seconds == pytest.approx(2 * whole.seconds)


def test_operations_on_elements_add_to_the_time_of_their_bytes():
    op = Op("elementwise", "forward", "a", activation_bytes=1 << 20, dense_flops=1 << 20)
    device = load_device("zen3")
    bytes_alone = load_device("zen3", element_s=0.0).estimate(op).seconds
    added = device.estimate(op).seconds - bytes_alone
    assert added == pytest.approx(op.flops * 1.8e-10)


@pytest.mark.parametrize("kind", ["elementwise", "embedding"])
def test_integers_and_booleans_cost_their_bytes(kind):
    device = load_device("zen3")
    one, flops = 1 << 20, 1 << 18
    bytes_alone = device.estimate(Op(kind, "forward", "a", activation_bytes=one)).seconds
    of_bytes = Op(kind, "forward", "a", activation_bytes=one, dense_flops=flops, dtype="int8")
    assert device.estimate(of_bytes).seconds == bytes_alone
    wide = Op(kind, "forward", "a", activation_bytes=one, dense_flops=flops, dtype="float64")
    assert device.estimate(wide).seconds == pytest.approx(bytes_alone + flops * 2 * 1.8e-10)


def test_a_whole_step_is_priced():
    device = load_device("zen3")
    ops = [
        Op("norm", "forward", "n", activation_bytes=1 << 20),
        Op("optimizer", "update", "l", activation_bytes=0, weight_bytes=1 << 22),
        Op("mask_update", "update", "l", dense_flops=2 * 64 * 96),
        Op("pack", "update", "l", weight_bytes=64 * 96 * 8, weight_shape=(64, 96),
           mask=mask_of(0.1)),
    ]  # fmt: skip
    kernels = [device.estimate(op).kernel for op in ops]
    assert kernels == ["stream", "stream", "select", "repack"]
    assert all(device.estimate(op).seconds > 0 for op in ops)


def test_terms_of_one_layer_by_hand():
    # 70 samples are two blocks of 64, six more than a multiple of eight; 300 inputs two tiles.
    assert terms("tiled", "forward", 70, 4, 300, 10) == {
        "call": 1, "sample": 10 * 128, "far_sample": 10 * 128, "visit": 20,
        "segment": 4 * 2 * 2, "activation": 70 * 304, "far_activation": 0,
        "odd": 6 * 304, "filled": 58 * 300,
    }  # fmt: skip
    assert terms("tiled", "grad_input", 8, 4, 300, 10)["segment"] == 300
    assert terms("tiled", "grad_input", 7, 4, 300, 10)["filled"] == 4
    assert terms("sampled", "grad_weight", 7, 4, 300, 10)["filled"] == 304
    # 2 MB of activations are between half and twice of a second-level cache.
    assert terms("tiled", "forward", 512, 512, 512, 1)["far_activation"] == 512 * 1024 / 2
    assert terms("tiled", "forward", 1024, 768, 768, 1)["far_activation"] == 1024 * 1536
    assert terms("dense_gradient", "grad_weight", 8, 512, 768, 1)["far_weight"] == 0
    assert terms("dense_gradient", "grad_weight", 8, 3072, 768, 1)["far_weight"] == 3072 * 768
    # Of 7 samples, 3 are left beyond a multiple of four: a pass for two and a pass for one.
    dense = terms("dense", "forward", 7, 16, 32, 1)
    assert (dense["tail"], dense["turned"]) == (2 * 16 * 32, 16 * 32)
    assert terms("dense", "grad_input", 8, 16, 32, 1)["tail"] == 0
    assert terms("dense", "grad_input", 8, 16, 32, 1)["turned"] == 0
    # Inputs of 512 KB are between half and twice of a second-level cache.
    assert terms("csr", "forward", 128, 8, 1024, 10)["far_sample"] == 10 * 128 / 2
    assert terms("dense_vector", "forward", 1, 4, 4, 16, cached_weights=10)["spilled"] == 6
    # 8 MB of weights are between half and twice of what translation buffers cover.
    assert terms("repack", "update", 1, 2048, 1024, 9, lines=7)["far_line"] == 7 / 2
    assert terms("sampled", "grad_weight", 8, 1024, 1024, 9, lines=7)["far_line"] == 0
    with pytest.raises(InputError, match="valid: dense"):
        terms("bcsr", "forward", 1, 1, 1, 1)


def synthetic(costs, rng):
    """Records of a machine that takes exactly these seconds."""
    records = []
    for name, table in costs.items():
        for _ in range(80):
            m, n, k = (int(v) for v in rng.integers(1, 400, 3))
            m = max(m, 2) if name.startswith("dense") else 1 if rng.random() < 0.2 else m
            phase = "grad_weight" if name in ("sampled", "dense_gradient") else "forward"
            phase = "update" if name in ("repack", "select", "stream") else phase
            kernel = "dense" if name.startswith("dense") else name
            m = 1 if name == "dense_vector" else m
            density = float(rng.random())
            steps = int(rng.integers(1, n * k + 1))
            counts = terms(name, phase, m, n, k, round(density * n * k), steps=steps)
            seconds = sum(counts[t] * s for t, s in table.items())
            records.append(
                Measurement.of_median(
                    seconds, machine="made up", toolchain="none", kernel=kernel, phase=phase,
                    m=m, n=n, k=k, dtype="float32", rounds=1, density=density, lookup_steps=steps,
                )
            )  # fmt: skip
    return records


def test_a_fit_finds_the_seconds_that_records_were_made_with(tmp_path):
    rng = np.random.default_rng(1)
    costs = {
        name: {t: 0.0 if t == "spilled" else float(rng.uniform(1e-9, 2e-9)) for t in used}
        for name, used in KERNEL_TERMS.items()
    }
    records = synthetic(costs, rng)
    fit = fit_cpu(records)
    assert max(fit.spread.values()) < 1e-6
    path = tmp_path / "made_up.toml"
    path.write_text(specification(fit, records, clock_hz=2e9), encoding="utf-8")
    device: Any = load_device(path)
    errors = relative_errors(records, lambda record: device.price_record(record).seconds)
    assert max(np.abs(e).max() for e in errors.values()) < 1e-3  # four digits are written


def test_disturbed_records_are_left_out_where_enough_is_left():
    rng = np.random.default_rng(2)
    costs = {name: dict.fromkeys(used, 1e-9) for name, used in KERNEL_TERMS.items()}
    for table in costs.values():
        if "spilled" in table:
            table["spilled"] = 0.0
    good = synthetic(costs, rng)
    bad = [
        dataclasses.replace(
            r, min_s=3 * r.min_s, low_quartile_s=3 * r.min_s, median_s=9 * r.min_s,
            high_quartile_s=9 * r.min_s,
        )
        for r in good[::3]
    ]  # fmt: skip
    assert max(fit_cpu([*good, *bad]).spread.values()) < 1e-6


def test_a_record_is_priced_as_its_op():
    device: Any = load_device("zen3")
    rng = np.random.default_rng(3)
    for kernel, phase in (
        ("tiled", "forward"),
        ("dense", "grad_input"),
        ("sampled", "grad_weight"),
    ):
        mask = Mask(rng.random((640, 512)) < 0.2)
        record = Measurement.of_median(
            1.0, machine="m", toolchain="t", kernel=kernel, phase=phase, m=64, n=640, k=512,
            dtype="float32", rounds=1, density=mask.density,
        )  # fmt: skip
        found = device.kernels(gemm(64, 640, 512, mask, phase))
        expected = next(e for e in found if e.kernel == kernel)
        assert device.price_record(record).seconds == pytest.approx(expected.seconds)
    with pytest.raises(InputError, match="unknown CPU kernel '2:4'"):
        device.price_record(dataclasses.replace(record, kernel="2:4"))


def test_a_table_with_other_terms_is_named():
    with pytest.raises(InputError, match="gather: terms are call; allowed are exactly call, g"):
        load_device("zen3", gather={"call": 1e-6})


def test_too_few_records_are_named():
    with pytest.raises(InputError, match="records: 0 of kernel 'dense'"):
        fit_cpu([])


def test_the_calibrator_of_cpu_models_fits_records_and_says_how_far_off_it_is(tmp_path):
    rng = np.random.default_rng(4)
    costs = {name: dict.fromkeys(used, 1.5e-9) for name, used in KERNEL_TERMS.items()}
    for table in costs.values():
        if "spilled" in table:
            table["spilled"] = 0.0
    sheet: Any = load_device("zen3")
    strange = Measurement.of_median(
        1.0, machine="m", toolchain="t", kernel="2:4", phase="forward", m=1, n=8, k=8,
        dtype="float16", rounds=1,
    )  # fmt: skip
    found = calibrate(sheet, [*synthetic(costs, rng), strange], rng=rng)
    assert {row["kernel"] for row in found.errors} == set(KERNEL_TERMS)
    assert max(row["held_out_mape"] for row in found.errors) < 0.02
    assert sum(found.rejected.values()) == 1
    path = tmp_path / "fitted.toml"
    path.write_text(found.text, encoding="utf-8")
    device: Any = load_device(path)
    assert device.tiled["sample"] == pytest.approx(1.5e-9)
    assert device.attention_share == sheet.attention_share


def test_measuring_gives_a_record_for_every_kernel(tmp_path):
    records = measure_cpu(
        [CpuCase(16, 32, 0.3, (1, 8))], rng=np.random.default_rng(0), budget_s=0.1
    )
    found = {kernel_of(r) for r in records}
    assert found == set(KERNEL_TERMS)
    assert all(json.dumps(dataclasses.asdict(r)) for r in records)
    for record in records:
        if record.kernel in ("tiled", "sampled"):
            assert record.packing


def test_measuring_again_within_the_budget_keeps_the_fastest(monkeypatch):
    passes = []

    def measured(cases, threads, rng, progress):
        passes.append(rng.random())
        clock.now += 3.0
        seconds = {1: 4.0, 2: 2.0, 3: 5.0}[len(passes)]
        about = {"machine": "m", "toolchain": "t", "kernel": "tiled", "phase": "forward"}
        return [Measurement.of_median(seconds, **about, m=1, n=1, k=1, dtype="float32", rounds=3)]

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("hwsim.calibration.measure_cpu._measured", measured)
    monkeypatch.setattr("hwsim.calibration.measure_cpu.time.perf_counter", clock)
    cases = [CpuCase(16, 32, 0.3, (1,))]
    records = measure_cpu(cases, budget_s=10.0, rng=np.random.default_rng(0))
    assert [r.min_s for r in records] == [2.0]
    assert len(passes) == 3 and len(set(passes)) == 1  # the same masks each time; a fourth is late


def test_measuring_nothing_or_for_no_time_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="cases: none given"):
        measure_cpu([], rng=rng)
    with pytest.raises(InputError, match="budget_s: value is 0"):
        measure_cpu(budget_s=0, rng=rng)


@given(seed=st.integers(0, 1000))
def test_drawn_cases_follow_from_their_seed_and_keep_their_ranges(seed):
    cases = drawn_cases(5, seed)
    assert cases == drawn_cases(5, seed) == drawn_cases(9, seed)[:5]
    for case in cases:
        assert case.n_out % 16 == case.n_in % 16 == 0
        assert min(case.n_out, case.n_in) >= 256 and case.n_out * case.n_in <= 3072 * 768
        assert 0.02 <= case.density <= 0.3
        assert case.batches[0] == 1 and max(case.batches) <= 512


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_drawn_mask_has_its_density_and_follows_from_its_seed(pattern):
    mask = drawn_mask(300, 400, 0.1, pattern, 3)
    assert mask == drawn_mask(300, 400, 0.1, pattern, 3) != drawn_mask(300, 400, 0.1, pattern, 4)
    assert mask.density == pytest.approx(0.1, rel=0.05)


def test_a_band_lies_along_the_diagonal_and_skewed_rows_differ():
    band = drawn_mask(300, 400, 0.1, "band", 3).array
    rows, columns = np.nonzero(band)
    # Three times as wide as its weights: 120 inputs, cut off at neither end.
    assert max(np.ptp(columns[rows == r]) for r in range(300)) <= 120
    assert np.corrcoef(rows, columns)[0, 1] > 0.9
    skewed, alike = (drawn_mask(300, 400, 0.1, p, 3).row_nnz.std() for p in ("skewed", "random"))
    assert skewed > 3 * alike


def test_an_unknown_pattern_of_a_case_is_named():
    with pytest.raises(InputError, match=r"pattern.*zigzag.*band"):
        drawn_mask(8, 8, 0.5, "zigzag", 0)


@settings(deadline=None)
@given(
    n=st.integers(1, 9), k=st.integers(1, 70), density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_weight_lines_are_the_runs_of_sixteen_with_an_active_weight(n, k, density, seed):
    mask = mask_of(density, (n, k), seed)
    flat = mask.array.reshape(-1)
    expected = sum(flat[start : start + 16].any() for start in range(0, flat.size, 16))
    assert weight_lines(mask) == expected


def test_random_masks_use_as_many_lines_as_expected():
    for density in (0.01, 0.1, 0.5):
        mask = mask_of(density, (512, 768))
        assert weight_lines(mask) == pytest.approx(expected_lines(mask.size, mask.nnz), rel=0.02)


@pytest.mark.parametrize("name", DEVICES)
def test_weights_side_by_side_are_packed_faster_than_as_many_apart(name):
    device = load_device(name)

    def packing(pattern):
        mask = drawn_mask(768, 768, 0.1, pattern, 0)
        return device.estimate(
            Op(
                "pack",
                "update",
                "l",
                weight_bytes=8 * mask.size,
                weight_shape=mask.shape,
                mask=mask,
            )
        ).seconds

    assert packing("band") < packing("random")
