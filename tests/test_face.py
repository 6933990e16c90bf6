"""The package `nettime`: its names, and a folder of the user's that hides one of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

import nettime

ROOT = Path(__file__).parent.parent


def python(code, folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments, "-c", code] if code else [sys.executable, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_names_that_people_need_are_there():
    import hwsim
    import sparse_train

    assert nettime.sparsify is sparse_train.sparsify
    assert nettime.load_device is hwsim.load_device
    for name in nettime.__all__:
        assert getattr(nettime, name) is not None
        assert name in dir(nettime)
    with pytest.raises(AttributeError, match="no attribute 'sparsifi'"):
        _ = nettime.sparsifi


def test_importing_it_loads_nothing_heavy():
    code = "import sys, nettime; print(sorted({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    assert python(code, ROOT).stdout.strip() == "[]"


def test_the_version_is_one():
    done = python("", ROOT, "-m", "nettime", "--version")
    assert done.stdout.strip() == f"nettime {nettime.__version__}"


@pytest.mark.parametrize("name", ["rl", "analysis"])
def test_a_folder_that_hides_a_package_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("mine = 1\n")
    line = f"{tmp_path / name} hides nettime's package {name!r}"
    works = python("import nettime; print(nettime.load_device('ideal').name)", tmp_path)
    assert works.stdout.strip() == "ideal"
    done = python("", tmp_path, "-m", "nettime", "devices")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert line in done.stderr
    if name == "rl":
        made = python(
            "import gymnasium; gymnasium.make('nettime.environment:SparseTraining-v0')", tmp_path
        )
        assert line in made.stderr


def test_a_model_beside_such_a_folder_is_priced_or_refused_in_one_line(tmp_path):
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "__init__.py").write_text("")
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)), "
        "torch.zeros(2, 8)\n"
    )
    installed = Path(sys.executable).with_name("nettime")
    if not installed.is_file():
        pytest.skip("the command is not installed beside this Python")
    done = subprocess.run(
        [installed, "estimate", "--model", "mine:make", "--device", "ideal"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 or done.stderr.count("\n") == 1, done.stderr


def test_gymnasium_makes_the_environment_by_our_name():
    import gymnasium

    world = gymnasium.make("nettime.environment:SparseTraining-v0")
    assert type(world.unwrapped).__module__ == "rl.envs.gym"
    assert world.spec.id == "SparseTraining-v0"
