"""The commands that are killed, in their smallest form, and what must come out of each."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

WORDS = ["mask", "weight", "grow", "drop", "layer", "dense", "sparse", "step", "net", "time"]


@dataclass(frozen=True)
class Command:
    """A command under attack.

    Attributes:
        name: of it.
        arguments: of a run that writes to a place (a folder or a file).
        place: name of that place in the folder of an attack.
        content: what must be equal, to the bit, however often the command was killed.
        before: called in the child first: what stands in for a GPU, or makes it do less.
        kills: how many, at full scale.
        damaged: whether its place is also hurt file by file, and read.
    """

    name: str
    arguments: Callable[[Path], Sequence[str]]
    place: str
    content: Callable[[Path], Any]
    kills: int
    before: Callable[[], None] = lambda: None
    damaged: bool = False


def commands(folder: Path) -> list[Command]:
    """The six of them; what they read lies in `folder`."""
    text = folder / "text"
    text.mkdir()
    rng = random.Random(0)
    for i in range(60):
        (text / f"{i}.txt").write_text(" ".join(rng.choices(WORDS, k=60)))
    records = folder / "records.jsonl"
    _write_records(records)
    task = {"text": str(text), "vocabulary_size": 280, "tokens": 16, "evaluation_windows": 8}
    model = {"layers": 1, "width": 16, "heads": 2, "ffn": 32}
    sizes = f"model_options={json.dumps(model)}"
    train = (
        "--algorithm", "rigl", "--density", "0.3", "--steps", "16", "--batch-size", "4",
        "--set", f"task_options={json.dumps(task)}", "--set", sizes,
        "--set", "update_interval=3", "--set", "warmup_steps=2", "--set", "eval_interval=5",
        "--set", "checkpoint_interval=2", "--set", "threads=1", "--device", "ideal",
    )  # fmt: skip
    compare = (
        "-a", "rigl", "--density", "0.3", "--seeds", "1", "--steps", "8", "--rate", "0.001",
        "--evaluations", "1", "--processes", "2", "--no-narrower", "--no-dense",
        "--batch-size", "4", "--device", "ideal", "--set", sizes,
        *(word for name, value in task.items() for word in ("--task-option", f"{name}={value}")),
    )  # fmt: skip
    agent = ("--env", "whitebox", "--set", "iterations=8", "--slots", "4")
    demo = ("--quick", "--device", "ideal")
    calibrate = ("--records", str(records), "--data-sheet", "a100")
    return [  # the slowest first
        Command("demo", lambda p: ("demo", "--out", str(p), *demo), "demo", of_runs, 30,
                partial(small_demo, task, model)),
        Command("compare", lambda p: ("compare", "--out", str(p), *compare), "compared", of_runs,
                30),
        Command("train", lambda p: ("train", "--run", str(p), *train), "run", of_run, 100,
                damaged=True),
        Command("agent train", lambda p: ("agent", "train", "--out", str(p), *agent),
                "agent", of_agent, 100, damaged=True),
        Command("calibrate", lambda p: ("calibrate", "gpu", "--out", str(p), *calibrate),
                "mine.toml", of_file, 30),
        Command("measure", lambda p: ("measure", "gpu", "--out", str(p)), "gpu.jsonl", of_records,
                30, fake_gpu),
    ]  # fmt: skip


def small_demo(task: dict[str, Any], model: dict[str, Any]) -> None:
    """All that `demo --quick` does, on a smaller text and network and in fewer steps."""
    from analysis import demo

    demo.TASK, demo.MODEL, demo.BATCH_SIZE, demo.UPDATE_INTERVAL = task, model, 4, 3
    as_shipped = demo.plan

    def plan(*, quick: bool) -> Any:
        made = as_shipped(quick=quick)
        steps = replace(made.base, steps=8)
        return replace(made, base=steps, evaluations=1, variants=made.variants[-1:])

    demo.plan = plan


def of_run(run: Path) -> Any:
    """What a run folder says, but for the seconds that it took here."""
    from sparse_train.record import TrainingRecord

    record = TrainingRecord.load(run)
    masks = [record.masks(v) for v in range(len(record.mask_versions))]
    return (
        of_file(run / "weights.safetensors"), record.complete, record.config,
        repr(record.training.drop("elapsed_s").rows()), record.densities.rows(),
        record.base_workload.digest,
        [{name: m.digest for name, m in version.items()} for version in masks],
    )  # fmt: skip


def of_runs(folder: Path) -> Any:
    return {
        path.parent.relative_to(folder).as_posix(): of_run(path.parent)
        for path in sorted(folder.rglob("weights.safetensors"))
    }


def of_agent(folder: Path) -> Any:
    import torch

    from rl.agents import checkpoint

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), value.shape, value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    saved = checkpoint.load(folder / "agent.pt")
    return (
        plain(saved.agent), plain(saved.env), repr(saved.curve), of_file(folder / "curve.csv")
    )  # fmt: skip


def of_records(path: Path) -> Any:
    from hwsim.measured.record import read_measurements

    return sorted((r.kernel, r.m, r.n, r.k) for r in read_measurements(path))


def of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Timer:
    """A GPU that takes as long as it is said to, and some milliseconds to be asked."""

    machine = "made-up GPU"

    def toolchain(self, case: Any) -> str:
        return "fake"

    def prepare(self, case: Any) -> Any:
        from hwsim.measured.gpu_suite import PreparedCase

        return PreparedCase(lambda: 0.01)

    def sample(self, prepared: Any, calls: int) -> float:
        import time

        time.sleep(0.0005)
        return calls * prepared.call()


def fake_gpu() -> None:
    import analysis.commands.measure
    import hwsim.measured.gpu_suite as suite

    steps = [[suite.GpuCase(f"case {i}", "step", 512, 128, 2, graph=False)] for i in range(30)]
    suite.plan = lambda *_: steps
    analysis.commands.measure._timer = lambda: (_Timer(), lambda: "1 GHz")


def _write_records(path: Path) -> None:
    import numpy as np

    from hwsim import load_device
    from hwsim.gpu.rules import Product
    from hwsim.measured.record import Measurement, write_measurements

    a100, rng = load_device("a100"), np.random.default_rng(0)
    shapes = [(int(2 ** rng.integers(6, 14)), 1024 + 256 * i, 2048) for i in range(10)]
    write_measurements(path, [
        Measurement.of_median(
            a100.product_seconds(kernel, "bfloat16", Product(*shape)), machine="made up",
            toolchain="none", kernel=kernel, phase="forward", m=shape[0], n=shape[1], k=shape[2],
            dtype="bfloat16", rounds=1, density=1.0 if kernel == "dense" else 0.5,
        )
        for shape in shapes
        for kernel in ("dense", "2:4")
    ])  # fmt: skip
