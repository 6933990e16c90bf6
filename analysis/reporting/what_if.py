"""What-if in a page: sliders over a priced grid; the same numbers as a table without scripts."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim import units

if TYPE_CHECKING:
    from analysis.estimating.what_if import Cell, Grid


def section(grid: Grid) -> str:
    """HTML: a heading, a place for sliders with its data and script, a table of speed-ups."""
    # A name may hold "</script>"; as JSON "<" can be written so that HTML does not see it.
    text = json.dumps(_data(grid), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    script = Path(__file__).with_name("what_if.js").read_text(encoding="utf-8")
    return (
        f"<h2>What if: a training step of {escape(grid.name)}</h2>\n"
        "<p>Priced under random masks of each pattern and density on the grid; nothing between "
        "its points is guessed.</p>\n"
        '<div id="what-if" hidden></div>\n'
        f"{_table(grid)}\n"
        f'<script type="application/json" id="grid">{text}</script>\n<script>{script}</script>'
    )


def _data(grid: Grid) -> dict[str, Any]:
    return {
        "unit": grid.unit,
        "devices": grid.devices,
        "batches": grid.batches,
        "patterns": [
            {
                "name": pattern,
                "asked": grid.of_pattern(pattern),
                "density": [
                    units.percent(grid.densities[pattern, d]) for d in grid.of_pattern(pattern)
                ],
                "share": [float(f"{grid.densities[pattern, d]:.6g}")
                          for d in grid.of_pattern(pattern)],
            }
            for pattern in grid.patterns
        ],
        "dense": [[_cell(cell) for cell in cells] for cells in grid.dense.values()],
        "sparse": [
            [
                [[_cell(cell) for cell in grid.sparse[batch, pattern, density]]
                 for density in grid.of_pattern(pattern)]
                for pattern in grid.patterns
            ]
            for batch in grid.batches
        ],
    }  # fmt: skip


def _cell(cell: Cell) -> list[Any]:
    times = [float(f"{value:.5g}") for value in (cell.seconds, cell.low, cell.high)]
    return [*times, cell.bound, cell.verified]


def _middle(grid: Grid) -> int:
    return grid.batches[len(grid.batches) // 2]


def _table(grid: Grid) -> str:
    batch = _middle(grid)
    dense = grid.dense[batch]
    unchecked = any(not cell.verified for cell in dense)
    head = ["masks", *(
        f"{name}{'' if cell.verified else ' *'}"
        for name, cell in zip(grid.devices, dense, strict=True)
    )]  # fmt: skip
    rows = [["dense", *(units.seconds(cell.seconds) for cell in dense)]]
    for pattern in grid.patterns:
        for density in grid.of_pattern(pattern):
            cells = grid.sparse[batch, pattern, density]
            share = units.percent(grid.densities[pattern, density])
            rows.append([
                f"{escape(pattern)} {share}",
                *(units.ratio(one.seconds / cell.seconds)
                  for one, cell in zip(dense, cells, strict=True)),
            ])  # fmt: skip
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    caption = f"How many times as fast as the dense step, {batch} {grid.unit} a step."
    if unchecked:
        caption += " * has prices that no real kernel has been held against (unverified)."
    return (
        f'<details id="what-if-table" open><summary>All of the grid at {batch} '
        f'{grid.unit}</summary><p class="note">{escape(caption)}</p>'
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div></details>"
    )
