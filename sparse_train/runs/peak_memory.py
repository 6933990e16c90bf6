"""How much memory training really takes: a run in a process of its own, its peak read off.

found = measure(TrainConfig(task="extreme", algorithm="srigl", density=0.125, …))
found.peak_bytes / found.needed_bytes
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from sparse_train.runs.config import TrainConfig

_PEAK, _NOW = "VmHWM", "VmRSS"
_SMALL_OUTPUTS = 64
_RETURNED_BYTES = 1 << 20  # freed memory of this size and more goes back to the system


@dataclass(frozen=True)
class PeakMemory:
    """What a run took, beside what it cannot do without.

    Attributes:
        outputs, width, fan_in: of the wide layer.
        weights: active weights of the layer.
        needed_bytes: all trained parameters with two moments each, and the layer's indices.
        layer_bytes: of that, the wide layer's.
        dense_bytes: what parameters and moments would need with a dense layer.
        peak_bytes: highest resident memory while training, above that before the model was made
            (interpreter, libraries and data set not counted). Gradients, activations, mask
            updates, evaluation and checkpoints are in it. What is freed goes back to the system
            at once (glibc's MALLOC_MMAP_THRESHOLD_ is set); by default glibc keeps some of it.
        steps: trained.
        loss: of the last validation.
    """

    outputs: int
    width: int
    fan_in: int
    weights: int
    needed_bytes: int
    layer_bytes: int
    dense_bytes: int
    peak_bytes: int
    steps: int
    loss: float

    @property
    def ratio(self) -> float:
        """Peak over need."""
        return self.peak_bytes / self.needed_bytes


def measure(config: TrainConfig) -> PeakMemory:
    """Trains in a fresh process and says what it took.

    Raises:
        InputError: not a run of task extreme with a condensed layer and AdamW, it failed, or this
            is Windows.
    """
    if config.task != "extreme" or config.optimizer != "adamw":
        raise InputError(
            f"task, optimizer: values are {config.task!r}, {config.optimizer!r}; allowed for "
            "peak memory are 'extreme' and 'adamw'"
        )
    if sys.platform == "win32":
        raise InputError("peak memory: cannot be read on Windows; allowed are Linux and macOS")
    done = subprocess.run(
        [sys.executable, "-m", "sparse_train.runs.peak_memory"],
        input=json.dumps(config.to_json()), capture_output=True, text=True, check=False,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_RETURNED_BYTES)},
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"peak memory: the run failed: {said[-1]}")
    return PeakMemory(**json.loads(done.stdout.splitlines()[-1]))


def _measured(config: TrainConfig) -> PeakMemory:
    """In the child: first a tiny run, so that code is loaded and compiled, then the real one."""
    from sparse_train.compute.condensed import CondensedLinear
    from sparse_train.runs.run import Run
    from sparse_train.tasks import make_task
    from sparse_train.trainer import train

    with tempfile.TemporaryDirectory() as folder:
        tiny = {**config.task_options, "data": "planted", "outputs": _SMALL_OUTPUTS}
        tiny = {**tiny, "inputs": 100, "examples": 200, "evaluation_examples": 20}
        steps = 2 * (config.update_interval or 1) + 1
        train(replace(config, task_options=tiny, steps=steps, end_step=None), f"{folder}/tiny")
        task = make_task(config.task, config.task_options).prepare()
        task.evaluation_batches()
        before = _settled()
        record = train(config, f"{folder}/run", task=task)
        peak = _status(_PEAK) - before
        # Made anew only now: the peak is read.
        model = Run(config, task).model
    layer = model.get_submodule("output")
    if not isinstance(layer, CondensedLinear):
        raise InputError("algorithm, pattern: this run's output layer is dense, not condensed")
    others = sum(p.numel() for p in model.parameters()) - layer.values.numel() - layer.bias.numel()
    dense = layer.n_out * (layer.n_in + 1)
    return PeakMemory(
        outputs=layer.n_out, width=layer.n_in, fan_in=layer.fan_in, weights=layer.values.numel(),
        needed_bytes=layer.needed_bytes + 12 * others, layer_bytes=layer.needed_bytes,
        dense_bytes=12 * (dense + others), peak_bytes=peak, steps=record.steps,
        loss=float(record.evaluations["loss"][-1]),
    )  # fmt: skip


def _settled() -> int:
    """Resident bytes now, freed memory given back, and the peak counted from here on."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass  # Another libc, or no right to: the peak then counts from the start, which is more.
    return _status(_NOW)


def _status(field: str) -> int:
    """A size of this process in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        # Elsewhere only the peak is known: in bytes on macOS, in KiB on others.
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def main() -> None:
    """Reads a config as JSON from standard input and prints what its run took."""
    try:
        content: dict[str, Any] = json.load(sys.stdin)
        print(json.dumps(asdict(_measured(TrainConfig.from_json(content)))))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
