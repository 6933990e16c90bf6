"""Flips, cuts and deletions in every file of a run folder and of an agent."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from tests.chaos.children import Broken
from tests.chaos.commands import of_agent, of_run

KINDS = ("flip", "cut", "delete", "zeros", "swap")


def damage(seed: int, whole: Path, folder: Path, count: int) -> Counter:
    """Each file in turn, so that none is left out; what is read is the same, or refused by name."""
    from hwsim import InputError

    rng, counts = random.Random(seed), Counter()
    read = of_agent if (whole / "agent.pt").exists() else of_run
    expected = read(whole)
    names = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    for number in range(count):
        name, kind = names[number % len(names)], rng.choice(KINDS)
        copy = folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        hurt(rng, copy / name, copy / rng.choice(names), kind)
        try:
            found = read(copy)
        except InputError as error:
            if "\n" in str(error) or name.name not in str(error):
                raise Broken(f"{kind} of {name}: {error}") from None
            counts[f"{kind}: named"] += 1
        except FileNotFoundError as error:
            if error.filename is None or Path(error.filename).name != name.name:
                raise Broken(f"{kind} of {name}: {error}") from None
            counts[f"{kind}: named"] += 1  # by this suite, which reads weights and curve itself
        else:
            unread = name.name in ("weights.safetensors", "curve.csv")  # hashed here, not loaded
            if found != expected and not unread:
                raise Broken(f"{kind} of {name}: used in silence")
            counts[f"{kind}: of no consequence"] += 1
    return counts


def hurt(rng: random.Random, path: Path, other: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "delete" or not data:
        path.unlink()
        return
    at = rng.randrange(len(data))
    if kind == "cut":
        del data[at:]
    elif kind == "zeros":  # as a disk gives back a block that it lost
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif kind == "swap":
        data = bytearray(other.read_bytes())
    else:
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def resumed(seed: int, run: Path, folder: Path, count: int) -> Counter:
    """A damaged run is gone on with to the same bits, or refused; never to others."""
    from hwsim import InputError
    from sparse_train.record import TrainingRecord
    from sparse_train.trainer import train

    rng, counts = random.Random(seed), Counter()
    config, expected = TrainingRecord.load(run).config, of_run(run)
    half = folder / "half"
    train(config, half, stop_after=9)
    names = [p.relative_to(half) for p in sorted(half.rglob("*")) if p.is_file()]
    for number in range(count):
        name, kind = names[number % len(names)], rng.choice(KINDS)
        copy = folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(half, copy)
        hurt(rng, copy / name, copy / rng.choice(names), kind)
        try:
            train(config, copy)
        except InputError as error:
            if "\n" in str(error) or name.name not in str(error):
                raise Broken(f"{kind} of {name}, then resumed: {error}") from None
            counts[f"resumed after {kind}: named"] += 1
        else:
            if of_run(copy) != expected:
                raise Broken(f"{kind} of {name}, then resumed: another result")
            counts[f"resumed after {kind}: to the same bits"] += 1
    return counts
