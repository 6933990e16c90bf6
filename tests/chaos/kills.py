"""Commands killed at random moments, and the same command twice at once."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import children
from tests.chaos.children import HANG_S, Broken
from tests.chaos.commands import Command
from tests.chaos.lanes import Counts


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    folder: Path
    content: Any
    took_s: float

    @property
    def limit_s(self) -> float:
        """After which the same work hangs, on a machine that others use too."""
        return HANG_S + 4 * self.took_s


def undisturbed(command: Command, folder: Path) -> Whole:
    """Run twice, for the first run fills caches: the second one is timed."""
    for name in ("first", "whole"):
        place = folder / name / command.place
        place.parent.mkdir(parents=True)
        began = time.monotonic()
        child = children.start(command.arguments(place), folder / f"{name}.log", command.before)
        if children.refused(child, children.wait(child, 600.0)):
            raise Broken(f"{command.name}: {children.text(child)[-300:]}")
        took_s = time.monotonic() - began
    contents = [
        children.asked(command.content, folder / name / command.place)
        for name in ("first", "whole")
    ]
    if contents[0] != contents[1]:
        raise Broken(f"{command.name}: two runs of the same command differ")
    return Whole(folder / "whole", contents[1], took_s)


def kills(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """Killed up to four times, then gone on with to the end: as if nothing had happened."""
    done = 0
    while done < count:
        attack = folder / "attack"
        shutil.rmtree(attack, ignore_errors=True)
        attack.mkdir(parents=True)
        place = attack / command.place
        for _ in range(min(4, count - done)):
            child = children.start(command.arguments(place), folder / "log", command.before)
            time.sleep(rng.uniform(0.0, 1.0) * whole.took_s)
            alone = rng.random() < 0.3  # its workers must then end themselves
            if children.kill(child, whole_group=not alone):
                counts[f"{command.name}: killed" + (", its workers not" if alone else "")] += 1
                done += 1
                counts.done(1, count)
            children.asked(nothing_half_written, attack)
        ends_as_whole(command, whole, place, folder)
        nothing_left_over(attack)
        counts[f"{command.name}: went on to the same bits"] += 1


def together(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """Two of the same command on one place: one refuses, or comes after the other."""
    for _ in range(count):
        attack = folder / "attack"
        shutil.rmtree(attack, ignore_errors=True)
        attack.mkdir(parents=True)
        place = attack / command.place
        pair = []
        for number in range(2):
            pair.append(
                children.start(command.arguments(place), folder / f"log{number}", command.before)
            )
            time.sleep(rng.uniform(0.0, 0.5) * whole.took_s if number == 0 else 0.0)
        codes = [children.wait(child, 2 * whole.limit_s) for child in pair]
        both = [children.refused(c, code) for c, code in zip(pair, codes, strict=True)]
        if all(both):
            raise Broken(f"{command.name}: both refused: {children.text(pair[0])[-200:]}")
        ends_as_whole(command, whole, place, folder)
        counts[f"{command.name}: two at once, " + ("one refused" if any(both) else "in turn")] += 1
        counts.done(1, count)


def ends_as_whole(command: Command, whole: Whole, place: Path, folder: Path) -> None:
    child = children.start(command.arguments(place), folder / "log", command.before)
    if children.refused(child, children.wait(child, whole.limit_s)):
        raise Broken(f"{command.name} does not go on: {children.text(child)[-300:]}")
    if children.asked(command.content, place) != whole.content:
        raise Broken(f"{command.name}: what went on differs from a run that nothing disturbed")


def nothing_half_written(folder: Path) -> None:
    """Every file that a reader would see is whole.

    Raises:
        Broken: one is not.
    """
    from hwsim import InputError, load_device
    from hwsim.files import is_leftover, parse_json, read_bytes
    from rl.agents import checkpoint
    from sparse_train.record import TrainingRecord

    for path in sorted(folder.rglob("*")):
        if is_leftover(path) or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                parse_json(read_bytes(path, path.name), path.name)
            elif path.suffix == ".toml":
                load_device(path)
            elif path.name == "agent.pt":
                checkpoint.load(path)
            elif path.name == "config.json":
                TrainingRecord.load(path.parent)
            elif path.suffix == ".csv":
                lines = path.read_text().split("\n")
                if lines.pop() or len({line.count(",") for line in lines}) > 1:
                    raise InputError(f"{path}: rows are cut off")
        except InputError as error:
            raise Broken(f"half-written: {error}") from None


def nothing_left_over(folder: Path) -> None:
    from hwsim.files import is_leftover

    left = [path.name for path in folder.rglob("*") if is_leftover(path)]
    if left:
        raise Broken(f"left over after the command went on: {left[:3]}")
