"""The prepared command that times whole steps, with stand-ins where there is no GPU."""

import sys
from dataclasses import asdict

import pytest
import torch

from analysis.steps.check import check_steps
from analysis.steps.models import workload_of
from analysis.steps.reading import read_steps
from benchmarks import measure_gpu_steps
from hwsim import load_device
from hwsim.measured.record import Measurement, read_measurements


def test_it_writes_steps_that_can_be_priced(tmp_path, monkeypatch, capsys):
    out = tmp_path / "steps.jsonl"
    monkeypatch.setattr(sys, "argv", ["measure_gpu_steps", str(out), "--stand-ins"])
    monkeypatch.setattr(measure_gpu_steps, "median_s", lambda step, device, least: 1e-3)
    measure_gpu_steps.main()
    steps = read_steps(out)
    assert [s.pattern for s in steps][-3:] == ["dense", "2:4", "transposable 2:4"]
    assert {s.precision for s in steps} == {"amp-bf16", "float32", "bfloat16"}
    assert len(check_steps(load_device("h200"), steps).rows) == len(steps)
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.endswith(" ms")]) == len(steps)
    records = out.with_suffix(".kernels.jsonl")
    kernels = read_measurements(records) if records.stat().st_size else []
    # Without Triton, or where a loaded machine's clock is unsteady, a record is left out by name.
    asked = {(k, m) for k in ("dense", "csr", "gather") for m in (1, 4)}
    assert {(r.kernel, r.m) for r in kernels} <= asked
    assert len(kernels) == len(asked) or any(line.startswith("left out") for line in printed)
    assert {r.machine for r in kernels} <= {"cpu, stand-ins"}


def test_condensed_products_are_those_of_the_survey():
    cases = [case for group in measure_gpu_steps.products(False) for case in group]
    assert {(c.m, c.n, c.k, c.dtype) for c in cases} == {
        (1, 768, 3072, "float32"), (256, 768, 3072, "float32"),
    }  # fmt: skip
    assert {c.kernel: c.density for c in cases} == {"dense": 1.0, "csr": 0.1, "gather": 0.1}
    device = load_device("h200")
    for case in cases[:1]:
        assert device.price_record(made_record(case)).seconds > 0


def made_record(case):
    return Measurement(
        machine="made up", toolchain="none", median_s=1e-5, min_s=1e-5, low_quartile_s=1e-5,
        high_quartile_s=1e-5, rounds=1, **asdict(case),
    )  # fmt: skip


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_a_sparse_step_runs_with_the_masks_that_are_priced(pattern):
    step = next(s for s in measure_gpu_steps.cases(True) if s.pattern == pattern)
    assert measure_gpu_steps.median_s(step, "cpu", 0.0) > 0
    masks = workload_of(step).masks
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(64, 97))
    made = measure_gpu_steps.sparsified(model, step, 64, "cpu")
    mask = made[0].inner.mask.numpy()
    assert isinstance(made[1], torch.nn.Linear)  # 97 outputs: no kernel takes it
    priced = next(m for m in masks.values() if m.shape[1] == 64)
    assert (priced.array[:4, :4] == mask[:4, :4]).all()
    assert len(masks) == 2 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure_gpu_steps", str(tmp_path / "steps.jsonl")])
    with pytest.raises(measure_gpu_steps.InputError, match="no GPU"):
        measure_gpu_steps.main()
