"""The GPU suite's command needs torch, triton and numpy alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ALONE = """
import runpy, sys
class OnlyTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, OnlyTorch())
sys.argv = ["hwsim.measured", "out.jsonl"]
runpy.run_module("hwsim.measured", run_name="__main__", alter_sys=True)
"""
MISSING = (
    "polars", "rich", "typer", "scipy", "numba", "simpy", "matplotlib", "safetensors",
    "tokenizers", "filelock", "threadpoolctl", "gymnasium", "torchrl", "tensordict",
)  # fmt: skip


def test_the_suite_comes_as_far_as_its_gpu_on_a_bare_machine(tmp_path):
    import torch

    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(missing=MISSING)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if torch.cuda.is_available():
        assert done.returncode == 0
    else:
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1 and "hwsim.measured: error:" in done.stderr
        assert any(word in done.stderr for word in ("GPU", "triton", "CUDA"))
