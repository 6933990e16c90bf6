"""`make chaos`: kills, damage and hostile inputs by the thousand, counted by kind.

Seeded and bounded. Only child processes of its own are killed. An invariant decides, not an
example: a command ends with 0, or with 2 and one line; what goes on after a kill ends like a run
that was never killed; what is damaged is refused or makes no difference.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HANG_S = 20.0
WORDS = ["mask", "weight", "grow", "drop", "layer", "dense", "sparse", "step", "net", "time"]
TRAIN = """
import json, sys
from hwsim import InputError
from sparse_train.runs.config import TrainConfig
from sparse_train.trainer import train
try:
    train(TrainConfig.from_json(json.loads(sys.argv[1])), sys.argv[2])
except InputError as error:
    sys.exit(str(error))
"""


class Broken(Exception):
    """An invariant that did not hold."""


def training(config: dict, run: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, json.dumps(config), str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen, limit_s: float = 240.0) -> tuple[int, str]:
    try:
        _, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Broken(f"hang of {limit_s:g} s") from None
    text = err.decode("utf-8", "replace")
    if "Traceback" in text or process.returncode:
        raise Broken(f"exit code {process.returncode}: {text[-300:]}")
    return process.returncode, text


def kills(rng: random.Random, folder: Path, count: int, counts: Counter) -> None:
    """`train` killed at random moments, gone on with, compared with a run that was not killed."""
    text = folder / "text"
    text.mkdir()
    for i in range(60):
        (text / f"{i}.txt").write_text(" ".join(rng.choices(WORDS, k=60)))
    config = {
        "task_options": {
            "text": str(text), "vocabulary_size": 280, "tokens": 16, "evaluation_windows": 8,
        },
        "model_options": {"layers": 1, "width": 16, "heads": 2, "ffn": 32},
        "algorithm": "rigl", "density": 0.3, "update_interval": 3, "steps": 16, "batch_size": 4,
        "warmup_steps": 2, "eval_interval": 5, "checkpoint_interval": 2, "threads": 1,
    }  # fmt: skip
    began = time.monotonic()
    ended(training(config, folder / "whole"))
    whole_s = time.monotonic() - began
    expected = (folder / "whole" / "weights.safetensors").read_bytes()
    done = 0
    while done < count:
        run = folder / f"run{done}"
        for _ in range(4):
            child = training(config, run)
            time.sleep(rng.uniform(0.5, 1.0) * whole_s)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                counts["train: killed"] += 1
                done += 1
            child.communicate()
        ended(training(config, run))
        if (run / "weights.safetensors").read_bytes() != expected:
            raise Broken(f"{run}: other weights after kills")
        counts["train: went on to the same bits"] += 1
        shutil.rmtree(run)


def damage(rng: random.Random, folder: Path, count: int, counts: Counter) -> None:
    """Flips, truncations and deletions in every file of a run folder."""
    from hwsim import InputError
    from sparse_train.record import TrainingRecord

    whole = folder / "whole"

    def content(run: Path) -> tuple:
        record = TrainingRecord.load(run)
        masks = [record.masks(v) for v in range(len(record.mask_versions))]
        return (
            record.config, record.training.rows(), record.measured.rows(), record.figures,
            record.densities.rows(), record.base_workload.digest, record.complete,
            [{name: m.digest for name, m in version.items()} for version in masks],
        )  # fmt: skip

    expected = content(whole)
    names = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    for _ in range(count):
        run, name = folder / "damaged", rng.choice(names)
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        kind = rng.choice(("flip", "cut", "delete"))
        data = bytearray((run / name).read_bytes())
        if kind == "delete" or not data:
            (run / name).unlink()
        else:
            at = rng.randrange(len(data))
            if kind == "cut":
                del data[at:]
            else:
                data[at] ^= 1 << rng.randrange(8)
            (run / name).write_bytes(data)
        try:
            found = content(run)
        except InputError as error:
            if "\n" in str(error) or name.name not in str(error):
                raise Broken(f"{kind} of {name}: {error}") from None
            counts[f"{kind}: named"] += 1
        else:
            if found != expected:
                raise Broken(f"{kind} of {name}: used in silence")
            counts[f"{kind}: of no consequence"] += 1


def mutated(rng: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    hostile = (b"9" * 5000, b"[" * 3000, b"1e-320", b"inf", b"nan", b"\x1b[2J", b"\xff", b"\0",
               b"-1", b"true", b'""', b"{}", b"9" * 400)  # fmt: skip
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(hostile)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2 if data:
                data[at % len(data)] = rng.randrange(256)
            case _:
                numbers = [i for i, c in enumerate(data) if 48 <= c <= 57]
                if numbers:
                    i = rng.choice(numbers)
                    data[i : i + 1] = rng.choice(hostile)
    return bytes(data)


def inputs(rng: random.Random, folder: Path, count: int, counts: Counter) -> None:
    """Mutated device files, records, configurations and command lines, in this process."""
    from dataclasses import asdict
    from importlib import resources

    from analysis.cli import run
    from hwsim import InputError, gemm, load_device
    from hwsim.measured.record import Measurement, read_measurements
    from sparse_train.runs.config import TrainConfig

    specs = [
        f.read_bytes() for f in (resources.files("hwsim") / "devices" / "specs").iterdir()
        if f.name.endswith(".toml")
    ]  # fmt: skip
    record = Measurement.of_median(
        1e-3, machine="m", toolchain="t", kernel="dense", phase="forward", m=8, n=8, k=8,
        dtype="float32", rounds=3,
    )  # fmt: skip
    line = json.dumps(asdict(record)).encode()
    config = json.dumps(TrainConfig().to_json()).encode()
    lines = (["estimate", "bert-tiny", "--density", "0.1"], ["devices"], ["tasks"],
             ["estimate", "vit-tiny", "--sparsity", "0.9", "--device", "ideal"])  # fmt: skip
    path = folder / "input"

    def device() -> None:
        (path.with_suffix(".toml")).write_bytes(mutated(rng, rng.choice(specs)))
        load_device(path.with_suffix(".toml")).estimate(gemm(64, 64, 64))

    def records() -> None:
        (path.with_suffix(".jsonl")).write_bytes(mutated(rng, line))
        read_measurements(path.with_suffix(".jsonl"))

    def configuration() -> None:
        from hwsim.files import parse_json

        TrainConfig.from_json(parse_json(mutated(rng, config), "configuration"))

    def line_of_a_command() -> None:
        words = list(rng.choice(lines))
        at = rng.randrange(1, len(words) + 1)
        words[at : at + rng.randint(0, 1)] = [
            mutated(rng, rng.choice(words).encode()).decode("utf-8", "replace").replace("\0", "")
        ]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if run(words) == 2:
                raise InputError("refused")

    kinds: list[tuple[Callable[[], None], int]] = [
        (device, 10), (records, 10), (configuration, 8), (line_of_a_command, 1),
    ]  # fmt: skip
    for _ in range(count):
        (kind,) = rng.choices([k for k, _ in kinds], [w for _, w in kinds])
        began = time.monotonic()
        try:
            kind()
            outcome = "read"
        except InputError as error:
            if "\n" in str(error):
                raise Broken(f"{kind.__name__}: {error}") from None
            outcome = "refused"
        except Exception as error:
            counts[f"{kind.__name__}: BROKEN {type(error).__name__}: {str(error)[:120]}"] += 1
            continue
        if time.monotonic() - began > HANG_S:
            raise Broken(f"{kind.__name__}: took {time.monotonic() - began:.0f} s")
        counts[f"{kind.__name__}: {outcome}"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=20_000)
    given = parser.parse_args()
    rng, counts = random.Random(given.seed), Counter()
    broken = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, count in ((kills, given.kills), (damage, given.damages), (inputs, given.inputs)):
            try:
                part(rng, folder, count, counts)
            except Broken as error:
                print(f"BROKEN {part.__name__}: {error}", file=sys.stderr)
                broken += 1
    for what, count in sorted(counts.items()):
        print(f"{count:7d}  {what}")
    return 1 if broken or any("BROKEN" in what for what in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
