"""Run folders that were damaged, lost files, or lie where the disk is full."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _tiny_run import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.files import replacing
from hwsim.mask import Mask
from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.trainer import train

FILES = (
    "config.json", "workload.json", "metrics.parquet", "evaluations.parquet", "densities.parquet",
    "figures.json", "masks/v0000.safetensors", "masks/v0001.safetensors", "manifest.json",
)  # fmt: skip


def content(record: TrainingRecord):
    """All that a record says."""
    return (
        record.config, record.training.drop("elapsed_s").rows(), record.measured.rows(),
        record.densities.rows(), record.figures, record.base_workload.digest,
        [{n: m.digest for n, m in record.masks(v).items()}
         for v in range(len(record.mask_versions))],
    )  # fmt: skip


@pytest.fixture(scope="module")
def half(text_folder, tmp_path_factory):
    """An interrupted run and, beside it, the same one trained to its end."""
    folder = tmp_path_factory.mktemp("damage")
    train(tiny(text_folder), folder / "half", stop_after=8)
    train(tiny(text_folder), folder / "whole")
    return folder


def copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_named_or_harmless(half, tmp_path, name, place, bit, cut):
    folder = copy(half / "whole", tmp_path / "run")
    before = content(TrainingRecord.load(folder))
    data = bytearray((folder / name).read_bytes())
    at = int(place * len(data))
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    (folder / name).write_bytes(data)
    try:
        found = content(TrainingRecord.load(folder))
    except InputError as error:
        assert Path(name).name in str(error)
        assert "\n" not in str(error)
        assert "restore it from a copy" in str(error)
    else:
        assert found == before


@pytest.mark.parametrize("name", [*FILES[1:-1], "weights.safetensors"])
def test_a_lost_file_is_named_not_taken_for_empty(half, tmp_path, name):
    folder = copy(half / "whole", tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{Path(name).name}: missing"):
        record = TrainingRecord.load(folder)
        content(record)
        assert record.complete


@pytest.mark.parametrize("name", [*FILES[2:-1], "checkpoint.pt"])
@pytest.mark.parametrize("lost", [True, False])
def test_what_is_damaged_is_never_trained_on(half, text_folder, tmp_path, name, lost):
    folder = copy(half / "half", tmp_path / "run")
    if lost:
        (folder / name).unlink()
    else:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    try:
        train(tiny(text_folder), folder)
    except InputError as error:
        assert Path(name).name in str(error)
        # What the line offers does recover the run.
        (folder / "checkpoint.pt").unlink()
        train(tiny(text_folder), folder)
    assert content(TrainingRecord.load(folder)) == content(TrainingRecord.load(half / "whole"))


def test_a_lost_table_of_a_folder_without_manifest_is_named(half, text_folder, tmp_path):
    for name in ("metrics.parquet", "densities.parquet"):
        folder = copy(half / "half", tmp_path / name)
        (folder / "manifest.json").unlink()
        assert TrainingRecord.load(folder).steps == 8  # folders of earlier versions are read
        (folder / name).unlink()
        with pytest.raises(InputError, match=name):
            TrainingRecord.load(folder)
            train(tiny(text_folder), folder)


@pytest.mark.parametrize("name", ["a[1]", "a*", "what?", "[!x]", "{a,b}"])
def test_names_are_never_taken_for_patterns(half, text_folder, tmp_path, name):
    copy(half / "whole", tmp_path / "a1")
    copy(half / "whole", tmp_path / "ab")
    record = train(tiny(text_folder, steps=4), tmp_path / name)
    assert record.steps == 4
    assert train(tiny(text_folder, steps=4), tmp_path / name).steps == 4


def test_a_library_that_panics_is_one_line(half, tmp_path, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_):
        raise PanicException("index out of bounds\nnote: run with RUST_BACKTRACE=1")

    monkeypatch.setattr("polars.read_parquet", panic)
    with pytest.raises(InputError, match=r"metrics\.parquet: not readable \(index out of bounds\)"):
        TrainingRecord.load(half / "whole")


def test_equal_masks_are_equal_bytes(tmp_path):
    masks = {n: Mask(np.eye(6, 10, dtype=bool)) for n in ("b", "a")}
    script = (
        "import sys, numpy as np; from pathlib import Path; from hwsim.mask import Mask;"
        "from sparse_train.runs import run_folder;"
        "masks = {n: Mask(np.eye(6, 10, dtype=bool)) for n in ('b', 'a')};"
        "run_folder.write_masks(Path(sys.argv[1]), 0, 1, masks)"
    )
    found = set()
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", script, folder], env=environment, check=True)
        found.add(run_folder.mask_path(folder, 0).read_bytes())
    run_folder.write_masks(tmp_path, 0, 1, masks)
    assert found == {run_folder.mask_path(tmp_path, 0).read_bytes()}
    assert run_folder.read_masks(run_folder.mask_path(tmp_path, 0)) == (1, masks)


def test_all_files_of_a_run_have_the_permissions_of_new_files(half, tmp_path):
    (tmp_path / "new").touch()
    expected = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    files = [p for p in (half / "whole").rglob("*") if p.is_file() and p.name != ".lock"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {expected}


def test_a_refused_run_leaves_no_folder(text_folder, tmp_path):
    config = tiny(text_folder)
    broken = tiny(text_folder, task_options={"text": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="nowhere"):
        train(broken, tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []
    assert config == tiny(text_folder)


# A limit on the size of files stands for a full disk: any user may set it.
FULL = """
import json, resource, signal, sys
from pathlib import Path
from hwsim.errors import InputError
from sparse_train.runs.config import TrainConfig
from sparse_train.runs import run_folder
import numpy as np, torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, kind = Path(sys.argv[1]), sys.argv[2]
large = torch.zeros(1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    if kind == "checkpoint":
        run_folder.write_checkpoint(folder, {"x": large})
    elif kind == "weights":
        run_folder.write_weights(folder, {"x": large})
    else:
        rows = [{"step": i, "loss": v, "learning_rate": v, "gradient_norm": v,
                 "mask_update": False, "elapsed_s": v}
                for i, v in enumerate(np.random.rand(30000).tolist())]
        run_folder.write_table(folder / "metrics.parquet", rows, run_folder.METRICS_SCHEMA)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["checkpoint", "weights", "table"])
def test_a_full_disk_is_one_line(tmp_path, kind):
    command = [sys.executable, "-c", FULL, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written: File too large" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_an_error_of_the_writer_itself_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
