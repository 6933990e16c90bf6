"""The GPU suite's plan and records, with a timer that only counts; its CUDA part needs a GPU."""

import dataclasses
import itertools

import numpy as np
import pytest

from hwsim import InputError, load_device
from hwsim.measured.crosscheck import crosscheck
from hwsim.measured.gpu_suite import STEP_KINDS, STEPS, GpuCase, PreparedCase, plan, run_suite
from hwsim.measured.record import read_measurements
from hwsim.measured.timing import SAMPLE_S

GROUPS = [
    [GpuCase("dense", "forward", 64, 32, 32), GpuCase("2:4", "forward", 64, 32, 32, density=0.5)],
    [GpuCase("csr", "forward", 16, 32, 32, density=0.1)],
]


class FakeTimer:
    """Each kernel takes its set time; samples are exact unless `noise` says otherwise."""

    def __init__(self, seconds=1e-5, noise=None, refuse=()):
        self.machine, self.seconds, self.refuse = "made-up GPU", seconds, refuse
        self.noise = noise or (lambda: 1.0)
        self.prepared, self.order = [], []

    def toolchain(self, case):
        return f"fake {case.kernel}"

    def prepare(self, case):
        if case.kernel in self.refuse:
            raise RuntimeError(f"no {case.kernel} here\nsecond line")
        self.prepared.append(case)
        return PreparedCase(lambda: self.order.append(case), runs=10 if case.graph else 1)

    def sample(self, prepared, calls):
        prepared.call()
        return self.seconds * calls * prepared.runs * self.noise()


def test_the_plan_has_every_kernel_direction_type_and_step_once():
    cases = [case for group in plan() for case in group]
    assert {c.kernel for c in cases} == {
        "dense", "2:4", "2:4 cutlass", "csr", "gather", "block", "v_n_m 64", "v_n_m 128",
        "library pack", "fused pack",
        *(f"{model} {kind}" for model in STEPS for kind in STEP_KINDS),
    }  # fmt: skip
    for kernel in ("dense", "csr", "gather", "block", "v_n_m 128"):
        phases = {c.phase for c in cases if c.kernel == kernel}
        assert phases == {"forward", "grad_input", "grad_weight"}
    assert {c.graph for c in cases if c.kernel == "2:4"} == {True, False}
    assert {c.dtype for c in cases} == {"bfloat16", "float16", "tfloat32", "float32"}
    forward = {c for c in cases if c.kernel == "2:4" and c.graph and c.phase == "forward"}
    assert len({(c.m, c.n, c.k) for c in forward}) >= 60  # half of them is enough for a fit
    shared = [c for c in cases if c.kernel == "dense"]
    assert len(set(cases) - set(shared)) == len(cases) - len(shared)  # only dense is shared


def test_every_size_of_the_plan_is_one_that_two_four_takes():
    from hwsim.gpu.rules import why_not_aligned
    from hwsim.workload import gemm

    for case in itertools.chain(*plan()):
        if case.kernel.startswith("2:4"):
            assert not why_not_aligned(gemm(case.m, case.n, case.k, None, case.phase, case.dtype))


def test_a_run_writes_a_record_per_case_with_its_time(tmp_path):
    path = tmp_path / "gpu.jsonl"
    outcome = run_suite(GROUPS, FakeTimer(2e-5), path, rounds=5)
    records = read_measurements(path)
    assert records == outcome.measured and len(records) == 3
    assert all(r.median_s == pytest.approx(2e-5) and r.rounds == 5 for r in records)
    assert {(r.kernel, r.density, r.graph) for r in records} == {
        ("dense", 1.0, True), ("2:4", 0.5, True), ("csr", 0.1, True),
    }  # fmt: skip
    assert {r.toolchain for r in records} == {"fake dense", "fake 2:4", "fake csr"}


def test_how_a_library_was_told_to_run_a_kernel_stands_in_its_record(tmp_path):
    class Noted(FakeTimer):
        def prepare(self, case):
            note = "algorithm searched" if case.kernel == "2:4" else ""
            return dataclasses.replace(super().prepare(case), note=note)

    outcome = run_suite(GROUPS[:1], Noted(), tmp_path / "gpu.jsonl", rounds=3)
    assert {r.kernel: r.toolchain for r in outcome.measured} == {
        "dense": "fake dense", "2:4": "fake 2:4, algorithm searched",
    }  # fmt: skip


def test_what_a_file_holds_is_not_measured_again(tmp_path):
    path = tmp_path / "gpu.jsonl"
    run_suite(GROUPS[:1], FakeTimer(), path)
    before = path.read_bytes()
    timer = FakeTimer()
    outcome = run_suite(GROUPS, timer, path)
    assert outcome.kept == 2 and [c.kernel for c in timer.prepared] == ["csr"]
    assert path.read_bytes().startswith(before)
    again = FakeTimer()
    assert run_suite(GROUPS, again, path).kept == 3 and not again.prepared


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "gpu.jsonl"
    run_suite(GROUPS, FakeTimer(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    outcome = run_suite(GROUPS, FakeTimer(), path)
    assert [r.kernel for r in outcome.measured] == ["csr"]
    assert len(read_measurements(path)) == 3


def test_records_of_another_machine_are_not_mixed_in(tmp_path):
    path = tmp_path / "gpu.jsonl"
    run_suite(GROUPS, FakeTimer(), path)
    other = FakeTimer()
    other.machine = "another GPU"
    with pytest.raises(InputError, match="holds records of made-up GPU; this machine is another"):
        run_suite(GROUPS, other, path)


def test_a_kernel_that_cannot_run_is_counted_with_its_first_line_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "gpu.jsonl"
    outcome = run_suite(GROUPS, FakeTimer(refuse=("2:4", "csr")), path)
    assert outcome.skipped == {"2:4: no 2:4 here": 1, "csr: no csr here": 1}
    assert [r.kernel for r in read_measurements(path)] == ["dense"]


def test_unsteady_kernels_give_no_record(tmp_path):
    rng = np.random.default_rng(0)
    timer = FakeTimer(noise=lambda: float(rng.choice([1.0, 3.0, 3.0])))
    outcome = run_suite(GROUPS[1:], timer, tmp_path / "gpu.jsonl")
    assert not outcome.measured and not (tmp_path / "gpu.jsonl").exists()
    assert "unsteady" in next(iter(outcome.skipped))


def test_no_group_is_begun_after_the_budget(tmp_path):
    ticks = iter([0.0, 1.0, 500.0])
    outcome = run_suite(
        GROUPS, FakeTimer(), tmp_path / "gpu.jsonl", budget_s=480, clock=lambda: next(ticks)
    )
    assert [r.kernel for r in outcome.measured] == ["dense", "2:4"] and outcome.left == 1


def test_samples_are_long_enough_and_variants_are_shuffled(tmp_path):
    timer = FakeTimer(1e-6)
    taken = []
    exact = timer.sample

    def noted(prepared, calls):
        taken.append(exact(prepared, calls))
        return taken[-1]

    timer.sample = noted
    run_suite(GROUPS[:1], timer, tmp_path / "gpu.jsonl", rounds=8)
    assert min(taken[-16:]) >= SAMPLE_S
    firsts = {case.kernel for case in timer.order[-16::2]}
    assert firsts == {"dense", "2:4"}


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run_suite(GROUPS, FakeTimer(), tmp_path / "nowhere" / "gpu.jsonl")


def test_a_steps_record_is_not_priced_as_a_product(tmp_path):
    path = tmp_path / "gpu.jsonl"
    run_suite(
        [[GpuCase("bert-base dense", "step", 16384, 768, 12, graph=False)]], FakeTimer(), path
    )
    (record,) = read_measurements(path)
    with pytest.raises(InputError, match="without its mask"):
        crosscheck(load_device("h200"), [record])
    assert dataclasses.asdict(record)["phase"] == "step"
