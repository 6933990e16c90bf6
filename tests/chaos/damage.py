"""Flips, cuts and deletions in every file of a run folder and of an agent."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from tests.chaos.children import HANG_S, Broken
from tests.chaos.commands import Command
from tests.chaos.kills import Whole
from tests.chaos.lanes import Counts

KINDS = ("flip", "cut", "delete", "zeros", "swap")


def damage(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """Each file in turn, so that none is left out; what is read is the same, or refused by name."""
    from hwsim import InputError

    place = whole.folder / command.place
    names = [p.relative_to(place) for p in sorted(place.rglob("*")) if p.is_file()]
    for number in range(count):
        signal.alarm(int(HANG_S))
        name, kind = names[number % len(names)], rng.choice(KINDS)
        copy = _copy(place, folder)
        hurt(rng, copy / name, copy / rng.choice(names), kind)
        try:
            found = command.content(copy)
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
            if found != whole.content and not unread:
                raise Broken(f"{kind} of {name}: used in silence")
            counts[f"{kind}: of no consequence"] += 1
        counts.done(1, count)
    signal.alarm(0)


def _copy(whole: Path, folder: Path) -> Path:
    copy = folder / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(whole, copy))


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


def resumed(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """A damaged run is gone on with to the same bits, or refused; never to others."""
    from hwsim import InputError
    from sparse_train.record import TrainingRecord
    from sparse_train.trainer import train

    config = TrainingRecord.load(whole.folder / command.place).config
    half = folder / "half"
    train(config, half, stop_after=9)
    names = [p.relative_to(half) for p in sorted(half.rglob("*")) if p.is_file()]
    for number in range(count):
        signal.alarm(int(whole.limit_s))
        name, kind = names[number % len(names)], rng.choice(KINDS)
        copy = _copy(half, folder)
        hurt(rng, copy / name, copy / rng.choice(names), kind)
        try:
            train(config, copy)
        except InputError as error:
            if "\n" in str(error) or name.name not in str(error):
                raise Broken(f"{kind} of {name}, then resumed: {error}") from None
            counts[f"resumed after {kind}: named"] += 1
        else:
            if command.content(copy) != whole.content:
                raise Broken(f"{kind} of {name}, then resumed: another result")
            counts[f"resumed after {kind}: to the same bits"] += 1
        counts.done(1, count)
    signal.alarm(0)
