"""A run killed at any moment and resumed equals one that was never interrupted, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from _tiny_run import tiny

from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.trainer import train

# Kills itself after a step, or in the middle of the n-th file that is written: half of the
# temporary file is there, or all of it but not yet its name, or its name but no more.
CHILD = """
import json, os, signal, sys
from hwsim import files
from sparse_train.runs.config import TrainConfig
from sparse_train.trainer import train

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def run(config, folder, point):
    kind, number = point
    if kind == "step":
        train(config, folder, progress=lambda p: die() if p.step == number else None)
    sync, calls = files._sync, [0]
    def counted(path):
        calls[0] += 1
        if calls[0] == number:
            if kind == "half" and path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            die()
        sync(path)
    files._sync = counted
    train(config, folder)
    os._exit(1)

config, jobs = json.loads(sys.stdin.read())
config = TrainConfig.from_json(config)
for folder, point in jobs:
    child = os.fork()  # nothing has run yet, so there are no threads to lose
    if child == 0:
        run(config, folder, point)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (point, status)
"""


def exact(record: TrainingRecord):
    """All that must be equal to the bit: losses, norms, densities, masks, weights."""
    state = run_folder.read_checkpoint(record.folder)
    return (
        record.training.drop("elapsed_s").rows(),
        record.measured.rows(),
        record.figures,
        record.densities.rows(),
        [first for first, _ in record.mask_versions],
        [{n: m.digest for n, m in record.masks(v).items()}
         for v in range(len(record.mask_versions))],
        {name: t.numpy().tobytes() for name, t in state["model"].items()},
        {(i, name): t.numpy().tobytes() for i, entry in state["optimizer"]["state"].items()
         for name, t in entry.items()},
        (record.folder / "weights.safetensors").read_bytes(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(text_folder, tmp_path_factory):
    return exact(train(tiny(text_folder), tmp_path_factory.mktemp("whole") / "run"))


def test_a_run_killed_anywhere_and_resumed_equals_one_never_interrupted(
    uninterrupted, text_folder, tmp_path
):
    rng = np.random.default_rng()
    steps = [("step", int(n)) for n in rng.choice(np.arange(1, 16), 3, replace=False)]
    files = 2 + len(uninterrupted[2]) + 4 * 3 + 1  # settings, masks, checkpoints, weights
    # Each file is synced, then its folder: two moments a file.
    writes = rng.choice(np.arange(3, 2 * files + 1), 4, replace=False)
    points = steps + [(("half", "whole")[i % 2], int(n)) for i, n in enumerate(writes)]
    points += [("half", 1), ("whole", 2)]
    jobs = [(str(tmp_path / f"{kind}{n}"), (kind, n)) for kind, n in points]
    subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([tiny(text_folder).to_json(), jobs]),
        text=True, check=True, timeout=240,
    )  # fmt: skip
    for folder, point in jobs:
        resumed = train(tiny(text_folder), folder)
        assert exact(resumed) == uninterrupted, f"killed at {point}"
        assert not list(resumed.folder.rglob("*.part"))


def test_what_was_recorded_before_the_checkpoint_is_there_after_a_kill(text_folder, tmp_path):
    job = [[str(tmp_path / "run"), ("step", 11)]]
    text = json.dumps([tiny(text_folder).to_json(), job])
    subprocess.run([sys.executable, "-c", CHILD], input=text, text=True, check=True, timeout=240)
    record = TrainingRecord.load(tmp_path / "run")
    assert record.steps == 8
    assert not record.complete
    assert sum(segment.steps for segment in record.segments()) == 8


def test_stopping_and_going_on_equals_one_run(uninterrupted, text_folder, tmp_path):
    config = tiny(text_folder)
    for stop in (0, 3, 7, 7, None):
        record = train(config, tmp_path / "run", stop_after=stop)
    assert exact(record) == uninterrupted


def test_a_complete_run_is_read_not_trained_again(text_folder, tmp_path):
    config = tiny(text_folder, steps=4)
    train(config, tmp_path / "run")
    steps = []
    train(config, tmp_path / "run", progress=steps.append)
    assert steps == []


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: a shell ignores it in what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_writes_a_checkpoint_of_the_step_and_raises(
    uninterrupted, text_folder, tmp_path, ctrl_c
):
    assert threading.current_thread() is threading.main_thread()

    def interrupt(progress):
        if progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny(text_folder), tmp_path / "run", progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    assert run_folder.read_checkpoint(tmp_path / "run")["step"] == 6
    assert exact(train(tiny(text_folder), tmp_path / "run")) == uninterrupted


def test_training_leaves_the_callers_random_state_alone(text_folder, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(tiny(text_folder, steps=3), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
