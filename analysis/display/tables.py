"""Tables that fit a terminal of 80 columns and never cut a number off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.estimating.breakdown import Breakdown, PricedPart
from hwsim import Estimate, units

if TYPE_CHECKING:
    from rich.table import Table

UNVERIFIED = "*"
UNVERIFIED_NOTE = f"{UNVERIFIED} unverified: no real kernel has been held against this price"


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[str] = ()
) -> Table:
    """A plain table. Columns named in `text` wrap at words; all others are numbers, never cut.

    Brackets in cells are shown as they are: "encoder.*.[ud]*" is a name, not markup.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        pad_edge=False, padding=(0, 1, 0, 0), header_style="bold",
    )  # fmt: skip
    for number, name in enumerate(columns):
        wraps = name in text
        made.add_column(
            name,
            justify="left" if number == 0 or wraps else "right",
            no_wrap=not wraps,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def breakdown_table(
    b: Breakdown, *, top: int = 0, extra: Sequence[PricedPart] = (), intervals: bool = True
) -> Table:
    """A step on one device. `top` keeps the rows with most time and sums up the rest.

    `extra` rows stand under the total: what the sparse step is compared with. Without `intervals`
    there is room for long names.
    """
    rows = list(b.rows)
    if top and len(rows) > top:
        ranked = sorted(rows, key=lambda row: -max(row.sparse.seconds, row.dense.seconds))
        rest = ranked[top:]
        others = PricedPart(
            f"{len(rest)} others",
            Estimate.total(r.dense for r in rest),
            Estimate.total(r.sparse for r in rest),
        )
        rows = [*ranked[:top], others]
    columns = ["", "dense", "sparse", "gain", "limited by", "kernel", "interval"]
    if not intervals or all(row.sparse.low_s == row.sparse.high_s for row in [*rows, *extra]):
        columns.pop()
    cells = [_cells(row)[: len(columns)] for row in [*rows, b.total, *extra]]
    made = table(
        f"{b.device}: one training step", columns, cells[: len(rows)], text=("limited by", "kernel")
    )
    made.add_section()
    made.add_row(*cells[len(rows)], style="bold")
    for row in cells[len(rows) + 1 :]:
        made.add_row(*row)
    return made


def _cells(row: PricedPart) -> tuple[str, ...]:
    mark = "" if row.sparse.verified and row.dense.verified else UNVERIFIED
    return (
        row.label,
        units.seconds(row.dense.seconds),
        units.seconds(row.sparse.seconds),
        units.ratio(row.speed_up) if row.dense.seconds > 0 else "–",
        row.sparse.bound,
        row.sparse.kernel + mark,
        units.interval(row.sparse.low_s, row.sparse.high_s),
    )


def any_unverified(breakdowns: Sequence[Breakdown]) -> bool:
    """Whether a price was not held against a real kernel."""
    return any(not b.total.sparse.verified or not b.total.dense.verified for b in breakdowns)
