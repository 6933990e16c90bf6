"""Random lines of masks that are known by their statistics alone."""

from __future__ import annotations

import numpy as np

from hwsim.masks.statistics import Cells, add_up

_PASSES = 20  # of moves until counts add up


def neighbours(
    cells: Cells, length: int, counts: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Random lines with these counts, side by side: those that have cells in common alike."""
    alike, each = min(cells.share, len(counts)), np.zeros(0, int)
    found: list[np.ndarray] = []
    for at in range(0, len(counts), alike):
        if cells.size > 1 and at % cells.like == 0:
            each = _cell_counts(cells, length, int(counts[at]), rng)
        line = _line(cells, length, int(counts[at]), each, rng)
        found += [line] * len(counts[at : at + alike])
    return found


def make_sum(found: np.ndarray, total: int, counts: np.ndarray, rng: np.random.Generator) -> None:
    """Moves some counts by a step up or down, so that they add up as nearly as steps allow."""
    possible = np.flatnonzero(counts > 0)
    step = int(possible[1] - possible[0])
    for _ in range(_PASSES):
        short = round((total - int(found.sum())) / step)
        if not short:
            return
        moved = found + step * int(np.sign(short))
        free = np.flatnonzero((moved >= possible[0]) & (moved <= possible[-1]))
        some = rng.permutation(free)[: abs(short)]
        found[some] = moved[some]


def _cell_counts(cells: Cells, length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Active weights of each cell of a line of so many."""
    cuts = -(-length // cells.size)
    possible = np.flatnonzero(cells.counts)
    if possible.size == 1:
        return np.full(cuts, possible[0])
    step = int(possible[1] - possible[0])
    if possible.size == 2:
        each = np.full(cuts, possible[0])
        more = round((count - int(each.sum())) / step)
        each[rng.choice(cuts, min(max(more, 0), cuts), replace=False)] += step
        return each
    each = rng.choice(len(cells.counts), cuts, p=cells.counts)
    if cells.edge:
        add_up(each, count, cells, rng)
        return each
    make_sum(each, count, np.array(cells.counts), rng)
    return each


def _line(
    cells: Cells, length: int, count: int, each: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A random line of so many active weights, lying as they do in its cells."""
    line = np.zeros(length, bool)
    if cells.size == 0 or count == 0:
        line[:] = count > 0
        return line
    if cells.size == 1:
        line[rng.choice(length, min(count, length), replace=False)] = True
        return line
    places = rng.random((each.size, cells.size))
    inside = places.argsort(axis=1).argsort(axis=1) < each[:, None]
    return inside.reshape(-1)[:length]
