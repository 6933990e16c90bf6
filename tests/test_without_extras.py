"""Without any extra every command helps, and what needs one names it in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HIDDEN = (
    "gymnasium", "torchrl", "tensordict", "cma", "ray", "tensorboard", "transformers", "lightning",
    "accelerate", "sacrebleu", "sklearn", "triton",
    "onnx",
)  # fmt: skip
WITHOUT = f"""
import importlib.util, sys
found = importlib.util.find_spec
hidden = {HIDDEN!r}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in hidden else found(name, package)
)
"""


def without(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments], capture_output=True, text=True
    )


# Without lines of progress, which a slow machine would have.
COMMAND = """from analysis.display import console
console.QUIET_S = 1e6
from analysis.cli import main
main()
"""


def test_every_command_helps():
    done = without(
        "import contextlib, io\nfrom analysis.cli import app, run\n"
        "import typer\n"
        "names = list(typer.main.get_command(app).commands)\n"
        "for name in names:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert run([name, '--help']) == 0, name\n"
        "print(len(names))"
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15


@pytest.mark.parametrize(
    "argv",
    [
        ["agent", "train", "--env", "whitebox", "--out", "x"],
        ["agent", "compare", "--env", "whitebox"],
        ["agent", "eval", "nothing.pt"],
        ["agent", "dsrl"],
        ["agent", "schedules", "--steps", "4"],
    ],
)
def test_what_needs_an_extra_names_it(argv, tmp_path):
    done = without(f"import os; os.chdir({str(tmp_path)!r})\n" + COMMAND, *argv)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert "nettime[rl]" in done.stderr


def test_pages_of_comparisons_are_checked_without_the_agents_extra(tmp_path):
    results = Path(__file__).parent.parent / "docs" / "results"
    for suffix in (".md", ".json"):
        shutil.copy(results / f"ablation{suffix}", tmp_path)
    done = without(COMMAND, "results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for suffix in (".md", ".json"):
        shutil.copy(results / f"agent_images{suffix}", tmp_path)
    done = without(COMMAND, "results", str(tmp_path))
    assert done.returncode == 2 and "nettime[rl]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "extra"),
    [
        (["estimate", "nothing.onnx"], "nettime[onnx]"),
        (["estimate", "hf:gpt2"], "nettime[hf]"),
        (["compare", "--on", "ray", "--quick", "--task", "extreme"], "nettime[ray]"),
        (["train", "--set", "tensorboard=true", "--run", "x"], "nettime[tensorboard]"),
        (["train", "--task", "images", "--run", "x"], "nettime[tasks]"),
        (["train", "--task", "translation", "--run", "x"], "nettime[tasks]"),
        (["train", "--task", "control", "--run", "x"], "nettime[tasks]"),
    ],
)
def test_what_else_needs_an_extra_names_it(argv, extra, tmp_path):
    done = without(f"import os; os.chdir({str(tmp_path)!r})\n" + COMMAND, *argv)
    assert done.returncode == 2 and done.stderr.strip().count("\n") == 0, done.stderr
    assert extra in done.stderr


def test_the_environment_names_its_extra():
    done = without("import nettime.environment")
    assert "pip install 'nettime[rl]'" in done.stderr.splitlines()[-1]
    done = without("import rl")
    assert "gymnasium, torchrl, tensordict not installed" in done.stderr.splitlines()[-1]
