"""Steps that are kept on disk: the same answer, without torch, and never from a damaged file."""

import json
import os
import subprocess
import sys

import pytest

from analysis.estimating import kept as keeping
from analysis.estimating import subject
from hwsim import Op, Workload

MODEL = ("mlp-small", 8, 16)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(keeping.FOLDER, str(tmp_path / "kept"))
    return tmp_path / "kept"


def _counted(monkeypatch):
    calls = []
    traced = subject.of
    monkeypatch.setattr(subject, "of", lambda *a, **k: calls.append(a) or traced(*a, **k))
    return calls


def test_a_second_estimate_of_a_model_traces_nothing(folder, monkeypatch):
    calls = _counted(monkeypatch)
    first = subject.named(*MODEL)
    again = subject.named(*MODEL)
    assert len(calls) == 1
    assert again.step == first.step
    assert (again.step.peak_bytes, again.shapes, again.weights, again.note) == (
        first.step.peak_bytes, first.shapes, first.weights, first.note
    )  # fmt: skip
    target = first.step.flops // 4
    assert first.narrowed is not None
    assert again.narrowed is not None
    assert first.narrowed(target) == again.narrowed(target)


def test_other_sizes_types_and_code_are_other_steps(folder, monkeypatch):
    calls = _counted(monkeypatch)
    subject.named(*MODEL)
    subject.named("mlp-small", 9, 16)
    subject.named(*MODEL, "bfloat16")
    assert len(calls) == 3
    monkeypatch.setattr(keeping, "_code", lambda: "other")
    subject.named(*MODEL)
    assert len(calls) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "binary"])
def test_a_damaged_file_is_traced_again(folder, monkeypatch, damage):
    whole = subject.named(*MODEL).step
    calls = _counted(monkeypatch)
    for path in folder.glob("*.json"):
        content = bytearray(path.read_bytes())
        where = len(content) // 2
        content[where] ^= 1
        path.write_bytes({
            "flip": bytes(content), "cut": bytes(content[:where]), "empty": b"",
            "binary": b"\xff\xfe" * 9,
        }[damage])  # fmt: skip
    assert subject.named(*MODEL).step == whole
    assert len(calls) == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(keeping.FOLDER, str(tmp_path / "file" / "below"))
    assert subject.named(*MODEL).step.dense_flops > 0


def test_only_so_many_are_kept(folder, monkeypatch):
    monkeypatch.setattr(keeping, "MOST", 3)
    step = Workload((Op("elementwise", "forward"),))
    for number in range(5):
        keeping.kept({"number": number}, lambda: {"step": step})
    assert len(list(folder.glob("*.json"))) == 3


def test_models_of_strangers_are_traced_each_time(folder):
    calls = []
    for _ in range(2):
        keeping.made_anew({"model": "theirs"}, lambda: calls.append(1) or {})
    assert len(calls) == 2


def test_warm_the_command_needs_no_torch(folder):
    command = (
        "import sys; from analysis.cli import run\n"
        "try:\n    run(['estimate', 'mlp-small', '--density', '0.1', '--json'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, timeout=120,
            env={**os.environ, keeping.FOLDER: str(folder)}, check=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [one.stderr.split()[-1] for one in found] == ["True", "False"]
    assert json.loads(found[0].stdout) == json.loads(found[1].stdout)
