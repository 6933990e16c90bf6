"""Runs of every kind of task go on after a SIGKILL and end as if it had not come, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig
from sparse_train.trainer import train

CHILD = """
import json, os, signal, sys
from sparse_train.runs.config import TrainConfig
from sparse_train.trainer import train

config, folder, at = json.loads(sys.stdin.read())
train(TrainConfig.from_json(config), folder,
      progress=lambda p: os.kill(os.getpid(), signal.SIGKILL) if p.step == at else None)
"""
RUN = {"steps": 12, "batch_size": 4, "warmup_steps": 2, "eval_interval": 5, "threads": 1,
       "checkpoint_interval": 5, "update_interval": 2, "density": 0.5, "test": True}  # fmt: skip
PLANTED = {"data": "planted", "outputs": 60, "inputs": 50, "examples": 200}
TASKS = {
    "extreme": {"algorithm": "srigl", "task_options": PLANTED, "model_options": {"width": 8}},
    "continual": {
        "algorithm": "set", "task_options": {"tasks": 3, "steps_per_task": 4},
        "model_options": {"width": 12},
    },
    "control": {
        "algorithm": "rigl", "model_options": {"width": 8},
        "task_options": {"warm_up": 20, "capacity": 30, "target_interval": 4,
                         "evaluation_episodes": 2},
    },
    "translation": {
        "algorithm": "rigl", "model_options": {"encoder_layers": 1, "decoder_layers": 1,
                                               "width": 16, "heads": 2, "ffn": 16},
        "task_options": {"vocabulary_size": 270, "tokens": 8, "evaluation_pairs": 4},
    },
}  # fmt: skip


def exact(folder):
    """All that must be equal to the bit."""
    state = run_folder.read_checkpoint(folder)
    tables = [
        run_folder.read_table(folder / name, schema).drop("elapsed_s", strict=False).rows()
        for name, schema in (
            (run_folder.METRICS, run_folder.METRICS_SCHEMA),
            (run_folder.EVALUATIONS, run_folder.EVALUATIONS_SCHEMA),
            (run_folder.DENSITIES, run_folder.DENSITIES_SCHEMA),
        )
    ]
    masks = [run_folder.read_masks(p) for p in run_folder.mask_versions(folder)]
    digests = [(first, {n: m.digest for n, m in found.items()}) for first, found in masks]
    bits = [t.numpy().tobytes() for key in ("model", "task") for t in _tensors(state[key])]
    return tables, digests, bits


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    if isinstance(items, (str, int, float)):
        return []
    return [t for item in items for t in _tensors(item)]


@pytest.mark.parametrize(
    "task",
    ["control", *(pytest.param(n, marks=pytest.mark.slow) for n in TASKS if n != "control")],
)
def test_a_killed_run_ends_as_one_that_was_not(task, tmp_path, cache_home):
    needs = {"control": "gymnasium", "continual": "sklearn", "translation": "sacrebleu"}
    pytest.importorskip(needs.get(task, "torch"), reason="pip install 'nettime[tasks]'")
    settings = {**RUN, "task": task, **TASKS[task]}
    if task == "translation":
        text = tmp_path / "t.tsv"
        text.write_text("".join(f"word {i}\tWort {i}\n" for i in range(90)))
        settings["task_options"] = {**settings["task_options"], "text": str(text)}
    config = TrainConfig(**settings)
    job = json.dumps([config.to_json(), str(tmp_path / "killed"), 8])
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=job, text=True, check=False, capture_output=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache_home)},
    )  # fmt: skip
    assert child.returncode == -9, child.stderr
    assert run_folder.read_checkpoint(tmp_path / "killed")["step"] == 5
    train(config, tmp_path / "killed")
    train(config, tmp_path / "whole")
    assert exact(tmp_path / "killed") == exact(tmp_path / "whole")
