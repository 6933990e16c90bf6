"""`nettime measure gpu` with a timer that only counts; without a GPU it says so."""

import pytest

from hwsim.measured.gpu_suite import GpuCase, PreparedCase
from hwsim.measured.record import read_measurements

torch = pytest.importorskip("torch")

SECONDS = {"bert-base dense": 0.1, "bert-base 2:4": 0.09, "bert-base transposable 2:4": 0.08}


class FakeTimer:
    machine = "made-up GPU"

    def toolchain(self, case):
        return "fake"

    def prepare(self, case):
        def call():
            return SECONDS.get(case.kernel, 0.01)

        return PreparedCase(call)

    def sample(self, prepared, calls):
        return calls * prepared.call()


@pytest.fixture
def fake_gpu(monkeypatch):
    steps = [[GpuCase(name, "step", 512, 128, 2, graph=False) for name in SECONDS]]
    monkeypatch.setattr("hwsim.measured.gpu_suite.plan", lambda: steps)
    monkeypatch.setattr("analysis.commands.measure._timer", lambda: (FakeTimer(), lambda: "1 GHz"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_one_line_says_so_and_nothing_is_written(nettime, tmp_path):
    shown = nettime("measure", "gpu", "--out", tmp_path / "gpu.jsonl")
    assert "no CUDA device here" in shown.error
    assert not list(tmp_path.iterdir())


def test_steps_stand_beside_their_estimates(nettime, tmp_path, fake_gpu):
    out = tmp_path / "gpu.jsonl"
    found = nettime("measure", "gpu", "--out", out, "--data-sheet", "h200", "--json").json
    assert found["measured"] == 3 and found["kept"] == found["left"] == 0
    rows = {row["step"]: row for row in found["steps"]}
    assert rows["bert-base transposable 2:4"]["speed_up"] == pytest.approx(0.1 / 0.08)
    assert all(row["estimated_s"] > 0 for row in rows.values())
    assert rows["bert-base dense"]["estimated_speed_up"] == 1.0
    assert len(read_measurements(out)) == 3


def test_whole_steps_are_written_as_crosscheck_reads_them(nettime, tmp_path, fake_gpu):
    out = tmp_path / "gpu.jsonl"
    found = nettime("measure", "gpu", "--out", out, "--json").json
    assert found["steps_file"] == str(tmp_path / "gpu-steps.jsonl")
    checked = nettime("crosscheck", "steps", found["steps_file"], "-d", "h200", "--json").json
    assert checked["all"]["steps"] == 3 and checked["cards"] == ["made-up GPU"]
    measured = {row["model"] for row in checked["steps"]}
    assert measured == {"encoder:bert-base"}


def test_a_second_run_keeps_what_is_there_and_shows_it(nettime, tmp_path, fake_gpu):
    out = tmp_path / "gpu.jsonl"
    nettime("measure", "gpu", "--out", out)
    shown = nettime("measure", "gpu", "--out", out)
    assert shown.code == 0 and "0 records measured, 3 kept" in shown.out
    assert "bert-base transposable 2:4" in shown.out and "1.2×" in shown.out
    assert "–" in shown.out  # no data sheet, no estimate


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tpu", "--out", "a.jsonl"), "unknown measure 'tpu'"),
        (("gpu", "--out", "a.csv"), "allowed is a name that ends in .jsonl"),
        (("gpu", "--out", "nowhere/a.jsonl"), "does not exist"),
        (("gpu", "--out", "a.jsonl", "--minutes", "0"), "allowed is above 0"),
    ],
)
def test_bad_arguments_are_named(nettime, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in nettime("measure", *arguments).error
