"""Mutated device files, records, configurations, data files, commands: read or refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import children
from tests.chaos.children import HANG_S, Broken
from tests.chaos.lanes import Counts

BATCH = 500
_MOST_BYTES = 12 << 30  # of address space of a child: what wants more is refused or broken
_HOSTILE = (
    b"9" * 5000, b"[" * 3000, b"1e-320", b"inf", b"nan", b"\x1b[2J", b"\xff", b"\0", b"-1", b"true",
    b'""', b"{}", b"9" * 400, b"1e308", b"0", b"\n", b",", b"\t", b'"', b"0x10", b"null", b"[]",
)  # fmt: skip


def mutated(rng: random.Random, text: bytes) -> bytes:
    """One to four edits: something hostile put in or in place of a digit, bytes lost or changed."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(_HOSTILE)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2 if data:
                data[at % len(data)] = rng.randrange(256)
            case _:
                numbers = [i for i, c in enumerate(data) if 48 <= c <= 57]
                if numbers:
                    i = rng.choice(numbers)
                    data[i : i + 1] = rng.choice(_HOSTILE)
    return bytes(data)


def inputs(rng: random.Random, folder: Path, count: int, counts: Counts) -> None:
    """In forked children of `BATCH` inputs each, so that a crash or a hang is seen and named."""
    if children.wait(children.forked(_compiled, folder / "log", lambda: None), HANG_S * 30):
        raise Broken("the inputs as they are could not be read")
    for start in range(0, count, BATCH):
        seed, told, last = rng.randrange(2**32), folder / "told.json", folder / "last"
        last.write_text("the inputs as they are")
        amount = min(BATCH, count - start)

        def work(
            seed: int = seed, amount: int = amount, told: Path = told, last: Path = last
        ) -> int:
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
            own: Counter = Counter()
            _batch(random.Random(seed), folder, amount, own, last)
            told.write_text(json.dumps(own))
            return 0

        child = children.forked(work, folder / "log", lambda: None)
        code = children.wait(child, HANG_S * 30)
        if code:
            how = "took too long" if code == -signal.SIGALRM else f"exit code {code}"
            raise Broken(f"{how} at {last.read_text()}: {children.text(child)[-600:]}")
        counts.update(json.loads(told.read_text()))
        counts.done(amount, count)


def _compiled() -> int:
    """Prices an op on every device: what Numba compiles is kept, and no input waits for it."""
    from hwsim import device_names, gemm, load_device

    for name in device_names():
        load_device(name).estimate(gemm(64, 64, 64))
    return 0


def _batch(rng: random.Random, folder: Path, count: int, counts: Counter, last: Path) -> None:
    import analysis.comparing.workers
    import rl.agents.learn
    import sparse_train.trainer
    from hwsim import InputError

    def not_here(*_: Any, **__: Any) -> Any:
        raise InputError("would run for long: its arguments were taken")

    # A mutated command may be a good one: what it would then do for minutes is not done here.
    analysis.comparing.workers._pool = not_here
    rl.agents.learn.train = sparse_train.trainer.train = not_here
    (folder / "here").mkdir(exist_ok=True)
    os.chdir(folder / "here")
    warnings.simplefilter("ignore")
    kinds = readers(rng, folder, last)
    for _ in range(count):
        (kind,) = rng.choices(kinds, [weight for _, weight in kinds])
        name, read = kind[0].__name__, kind[0]
        last.write_text(name)
        signal.alarm(int(HANG_S))
        began = time.monotonic()
        try:
            read()
            outcome = "read"
        except InputError as error:
            outcome = "refused"
            if "\n" in str(error) or "\x1b" in str(error) or len(str(error)) > 2000:
                outcome = f"BROKEN, no plain line: {str(error)[:200]!r}"
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-3:]
            where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(at))
            outcome = f"BROKEN {type(error).__name__}: {str(error)[:160]!r} at {where}"
            outcome += f" ({last.read_text()[:300]})"
        signal.alarm(0)
        slow = time.monotonic() - began
        counts[f"{name}: {outcome}"] += 1
        if slow > HANG_S / 2:
            counts[f"{name}: over {HANG_S / 2:.0f} s"] += 1


def readers(rng: random.Random, folder: Path, last: Path) -> list[tuple[Callable[[], None], int]]:
    """What reads a mutated input, and how often it is drawn."""
    from dataclasses import asdict
    from importlib import resources

    from hwsim import gemm, load_device
    from hwsim.files import parse_json
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
    op = gemm(64, 64, 64)

    def device() -> None:
        path = folder / "x.toml"
        path.write_bytes(mutated(rng, rng.choice(specs)))
        load_device(path).estimate(op)

    def records() -> None:
        path = folder / "x.jsonl"
        path.write_bytes(mutated(rng, b"\n".join([line] * rng.randint(1, 4)) + b"\n"))
        read_measurements(path)

    def configuration() -> None:
        TrainConfig.from_json(parse_json(mutated(rng, config), "configuration"))

    data = [_of_file(rng, folder, *one) for one in _files(folder)]
    return [
        (device, 16), (records, 10), (configuration, 10), (_command(rng, last), 2),
        *((read, 1) for read in data),
    ]  # fmt: skip


def _of_file(
    rng: random.Random, folder: Path, name: str, content: bytes, read: Callable[[Path], Any]
) -> Callable[[], None]:
    path = folder / f"data-{name}" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    read(path)  # else mutations of it would say nothing

    def reader() -> None:
        path.write_bytes(mutated(rng, content))
        read(path)

    reader.__name__ = f"data file {name}"
    return reader


def _files(folder: Path) -> list[tuple[str, bytes, Callable[[Path], Any]]]:
    """Small files of every format that tasks read, and their readers."""
    import gzip
    import tarfile
    import zipfile

    import numpy as np

    from sparse_train.data.embeddings import read_vectors
    from sparse_train.data.gettext_catalogue import read_catalogue
    from sparse_train.data.image_files import load_images, read_idx
    from sparse_train.data.labelled_text import load_labelled
    from sparse_train.data.parallel_text import load_parallel
    from sparse_train.data.ratings import load_ratings
    from sparse_train.data.safe_files import read_text
    from sparse_train.data.text import load_corpus
    from sparse_train.data.xmc_format import load_xmc

    text = b"\n\n".join(b"some words about masks and %d weights " % i * 8 for i in range(40))
    ratings = b"userId,itemId,rating\n" + b"".join(
        b"%d,%d,%d.5\n" % (i, i % 5, i % 4) for i in range(30)
    )
    labelled = b"label,text\n" + b"".join(b'%d,"some, text %d"\n' % (i % 3, i) for i in range(60))
    pairs = b"".join(b"hello %d\tbonjour %d\n" % (i, i) for i in range(60))
    xmc = b"200 8 4\n" + b"".join(
        b"%d,3 0:%d.5 %d:0.25\n" % (i % 3, i, i % 7 + 1) for i in range(200)
    )
    (folder / "data-text.txt").mkdir(exist_ok=True)
    for i in range(60):
        (folder / "data-text.txt" / f"{i}.txt").write_bytes(b"%d words " % i * 50)
    vectors = b"5 4\n" + b"".join(b"word%d 0.1 -0.2 3e-1 4\n" % i for i in range(5))
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 4, 4)) + bytes(48)
    po = b'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + b"".join(
        b'msgid "one %d"\nmsgstr "un %d"\n\n' % (i, i) for i in range(20)
    )
    part = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    batches = {
        f"cifar-10-batches-py/{n}": pickle.dumps(part, 2)
        for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz", compresslevel=1) as archive:
        for name, content in batches.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in ("train.txt", "test.txt"):
            archive.writestr(name, xmc)
    return [
        ("text.txt", text, lambda p: load_corpus(str(p.parent))),
        ("packed.txt.gz", gzip.compress(text), read_text),
        ("ratings.csv", ratings, lambda p: load_ratings(str(p))),
        ("labelled.csv", labelled, lambda p: load_labelled(str(p))),
        ("pairs.tsv", pairs, lambda p: load_parallel(str(p), ("en", "fr"))),
        ("catalogue.po", po, read_catalogue),
        ("catalogue.mo", _mo(), read_catalogue),
        ("train.txt", xmc, load_xmc),
        ("xmc.zip", zipped.getvalue(), load_xmc),
        ("vectors.txt", vectors, lambda p: read_vectors(str(p))),
        ("images-idx3-ubyte", idx, lambda p: read_idx(p, 3)),
        ("cifar-10-python.tar.gz", tar.getvalue(), lambda p: load_images("cifar10", str(p.parent))),
    ]


def _mo() -> bytes:
    """A catalogue of two messages in gettext's binary form."""
    ids, strings = [b"", b"one"], [b"Content-Type: text/plain; charset=UTF-8\n", b"un"]
    head = 28 + 16 * len(ids)
    places, at, body = [], head, b""
    for group in (ids, strings):
        for item in group:
            places.append(len(item).to_bytes(4, "little") + at.to_bytes(4, "little"))
            body, at = body + item + b"\0", at + len(item) + 1
    words = (0x950412DE, 0, len(ids), 28, 28 + 8 * len(ids), 0, head)
    return b"".join(w.to_bytes(4, "little") for w in words) + b"".join(places) + body


def _command(rng: random.Random, last: Path) -> Callable[[], None]:
    lines = (
        ["estimate", "bert-tiny", "--density", "0.1"],
        ["estimate", "vit-tiny", "--sparsity", "0.9", "--device", "ideal", "--json"],
        ["estimate", "bert-tiny", "--device", "zen4", "--explain", "--batch", "2"],
        ["devices"], ["devices", "zen3", "--json"], ["tasks"], ["tasks", "mlm"],
        ["runs", "nowhere"], ["report", "nowhere", "--out", "x.html"],
        ["train", "--run", "/proc/nowhere", "--density", "2", "--steps", "1"],
        ["compare", "--out", "/proc/nowhere", "--seeds", "1", "--set", "batch_size=4"],
        ["measure", "gpu", "--out", "nowhere/x.jsonl", "--minutes", "1"],
        ["calibrate", "gpu", "--records", "nowhere", "--data-sheet", "a100", "--out", "x.toml"],
        ["crosscheck", "--device", "zen3", "--records", "nowhere"],
        ["agent", "train", "--env", "whitebox", "--out", "/proc/nowhere"],
        ["agent", "eval", "nowhere.pt", "--episodes", "2"], ["results", "nowhere"],
        ["plan", "--model", "bert-tiny", "--hours", "1"], ["demo", "--out", "/proc/nowhere"],
    )  # fmt: skip

    def command_line() -> None:
        from analysis.cli import run
        from analysis.display import console
        from hwsim import InputError

        console.QUIET_S = 1e6  # an error is one line; a slow machine would have progress beside it
        words = list(rng.choice(lines))
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(1, len(words) + 1)
            made = mutated(rng, rng.choice(words).encode("utf-8", "surrogateescape")).replace(
                b"\0", b""
            )
            words[at : at + rng.randint(0, 1)] = [made.decode("utf-8", "surrogateescape")]
        last.write_text(ascii(words))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(words)
        if code == 2:
            raise InputError(err.getvalue().rstrip("\n"))
        if code:
            raise RuntimeError(f"exit code {code} of {words}")

    return command_line
