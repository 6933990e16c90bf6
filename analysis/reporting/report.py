"""One self-contained HTML file about some runs: no network, light and dark, complete as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.reporting import interactive, plots
from analysis.reporting import what_if as trying
from analysis.reporting.contenders import (
    Reached,
    ReportedRun,
    compare,
    devices_of,
    reference,
)
from analysis.reporting.contenders import verdicts as contenders_verdicts
from analysis.reporting.summary import target_losses
from analysis.reporting.timelines import Drawing
from hwsim import InputError, units
from hwsim.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.estimating.what_if import Grid

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --muted: #59626c; %(light)s }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --muted: #a3abb4; %(dark)s } }
body { background: var(--paper); color: var(--ink); margin: 0 auto; max-width: 62rem;
  padding: 1.5rem; font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
p, li { max-width: 46rem; } .note, figcaption { color: var(--muted); font-size: .88rem; }
.verdict { border-left: 4px solid var(--vermilion); padding: .1rem 0 .1rem 1rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; } figure { margin: 1rem 0; }
.scroll { overflow-x: auto; } .scroll svg { width: 100%%; height: auto; min-width: 36rem; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
fieldset { border: 1px solid var(--grid); display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.dial { display: inline-flex; flex-wrap: wrap; gap: .3rem; align-items: center; }
.dial output { min-width: 6em; font-variant-numeric: tabular-nums; } .key { white-space: nowrap; }
summary { cursor: pointer; }
button, select { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--muted); border-radius: 4px; padding: .2rem .7rem; }
.chart { touch-action: pan-y; user-select: none; } .chart svg { display: block; }
.said { min-height: 1.5em; margin: .2rem 0; } code { overflow-wrap: anywhere; }
@media (max-width: 30rem) { body { padding: 1rem .8rem; } }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--grid);
  font-variant-numeric: tabular-nums; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td small { color: var(--muted); } th { font-weight: 600; }
"""


def report(
    contenders: Sequence[ReportedRun],
    title: str,
    notes: Sequence[str] = (),
    drawings: Sequence[Drawing] = (),
    provenance: Sequence[tuple[str, str]] = (),
    verdicts: Sequence[str] | None = None,
    grid: Grid | None = None,
) -> str:
    """The page.

    Args:
        contenders: at least one; names differ.
        title: what the page is about.
        notes: sentences that the reader must know before the numbers, for example how learning
            rates were chosen.
        drawings: timelines to show at the end.
        provenance: (what, value): how the page came about, for its end.
        verdicts: who wins; by default what `verdict_lines` says.
        grid: estimates to try out, before the timelines.

    Raises:
        InputError: no contender, two of one name, or no device that all have times on.
    """
    names = [c.name for c in contenders]
    if not names:
        raise InputError("report: no run is given; allowed is at least one run folder")
    if len(set(names)) != len(names):
        raise InputError(f"report: two runs are called {max(names, key=names.count)!r}")
    if not devices_of(contenders):
        raise InputError("report: no device has times of every run")
    with plots.styled():
        sections = [
            *_sections(contenders, title, notes, verdicts),
            *([trying.section(grid)] if grid is not None else []), *_timelines(drawings),
            *_provenance(provenance),
        ]  # fmt: skip
    body = "\n".join(sections)
    return _page(title, body)


def what_if(
    grid: Grid, notes: Sequence[str] = (), provenance: Sequence[tuple[str, str]] = ()
) -> str:
    """A page of its own about a priced grid; `notes` and `provenance` as for `report`."""
    title = f"What a training step of {grid.name} costs"
    sections = [
        f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes),
        trying.section(grid), *_provenance(provenance),
    ]  # fmt: skip
    return _page(title, "\n".join(sections))


def write(page: str, path: Path) -> Path:
    """Writes the page so that nobody ever sees half of it; its absolute path."""
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"report file {path}: cannot be written: {error.strerror}") from None
    write_text(path, page)
    return path


def _sections(
    contenders: Sequence[ReportedRun], title: str, notes: Sequence[str],
    verdicts: Sequence[str] | None,
) -> Iterable[str]:  # fmt: skip
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="note">{escape(_what_is_compared(contenders))}</p>'
    if len(contenders) > 1:
        yield '<div class="verdict">'
        lines = verdict_lines(contenders) if verdicts is None else verdicts
        yield from (f"<p>{escape(line)}</p>" for line in lines)
        yield "</div>"
    yield from (f"<p>{escape(note)}</p>" for note in notes)
    yield "<h2>Runs</h2>" + _runs_table(contenders)
    if len(contenders) > 1:
        yield "<h2>Net training time to the same validation loss</h2>"
        for loss, which in target_losses(contenders):
            yield _times_table(contenders, loss, which)
    yield "<h2>Loss</h2>"
    yield interactive.section(contenders)
    yield _figure(
        plots.loss_by_steps(contenders), "Validation loss against training steps.", "static"
    )
    yield _figure(
        plots.loss_by_time(contenders),
        "Validation loss against net training time. Net time counts every operation of every step: "
        "masked and dense products, attention, optimizer, packing, mask updates.",
        "static",
    )
    drawn = plots.densities(contenders)
    if drawn is not None:
        yield "<h2>Density of each layer</h2>"
        yield _figure(drawn, "Active share of each masked layer's weights; 1 is dense.")
    yield from _costs(contenders)


def _timelines(drawings: Sequence[Drawing]) -> Iterable[str]:
    if not drawings:
        return
    yield "<h2>Who waits for whom</h2>"
    yield (
        "<p>How far a bar is filled is the share of the time in which a resource is busy; hatched "
        "is the time in which arrays wait, in the colour of what they wait for.</p>"
    )
    for drawing in drawings:
        yield _figure(drawing.figure(), drawing.caption)


def verdict_lines(contenders: Sequence[ReportedRun]) -> list[str]:
    """Who is first, per device: at the dense run's best loss, or at the lowest that all reach."""
    return contenders_verdicts(contenders, target_losses(contenders)[-1][0])


def _costs(contenders: Sequence[ReportedRun]) -> Iterable[str]:
    if not all(c.layers for c in contenders):
        return
    yield "<h2>Where the time of a step goes</h2>"
    yield _figure(
        plots.steps_by_phase(contenders),
        "Cost of one ordinary training step under the last masks of each run, by phase.",
    )
    sparse = [c for c in contenders if c.densities]
    one = reference(contenders) or contenders[0]
    other = sparse[-1] if sparse else None
    if other is None or other is one:
        return
    for device in devices_of(contenders):
        if device not in one.layers:
            continue
        yield _figure(
            plots.steps_by_layer(one, other, device),
            f"By layer and phase on {device}: {one.name} and {other.name}, on one scale.",
        )


def _what_is_compared(contenders: Sequence[ReportedRun]) -> str:
    count = len(contenders)
    devices = ", ".join(devices_of(contenders))
    return f"{count} training run{'s' if count > 1 else ''}; devices: {devices}."


def _runs_table(contenders: Sequence[ReportedRun]) -> str:
    facts = list(dict.fromkeys(key for c in contenders for key, _ in c.facts))
    head = ["run", "density", "steps", "best validation loss", "last", *facts]
    rows = []
    for c in contenders:
        known = dict(c.facts)
        rows.append(
            [
                escape(c.name), units.percent(c.density), str(int(c.steps[-1])),
                f"{c.best_loss:.3f}", f"{c.last_loss:.3f}",
                *(escape(known.get(fact, "–")) for fact in facts),
            ]
        )  # fmt: skip
    return _table(
        "Density is the active share of the weights under masks. Losses are in nats per token.",
        head, rows,
    )  # fmt: skip


def _times_table(contenders: Sequence[ReportedRun], loss: float, which: str) -> str:
    base = reference(contenders)
    devices = devices_of(contenders)
    comparisons = [compare(contenders, device, loss) for device in devices]
    head = ["run"]
    for device in devices:
        mark = "" if all(c.verified.get(device, True) for c in contenders) else " *"
        head += [f"{device}{mark}", *(["÷ dense"] if base else [])]
    rows = []
    for c in contenders:
        row = [escape(c.name)]
        for comparison in comparisons:
            row.append(_reached(comparison.times[c.name]))
            if base is not None:
                share = comparison.relative(c.name, base.name)
                row.append("–" if share is None else units.digits(share, 2))
        rows.append(row)
    caption = (
        f"To validation loss {loss:.3f} ({which}). In brackets the interval: between which two "
        "evaluations the loss was reached, at the low and the high price."
    )
    if any("*" in name for name in head):
        caption += " * has prices that no real kernel has been held against (unverified)."
    return _table(caption, head, rows)


def _reached(reached: Reached | None) -> str:
    if reached is None:
        return "not reached"
    between = units.interval(reached.low, reached.high)
    return units.seconds(reached.seconds) + (
        f" <small>({between})</small>" if between != "–" else ""
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` hold HTML; `head` and `caption` hold text."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><div class="scroll"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def _figure(drawn: Figure, caption: str, kind: str = "") -> str:
    """A picture that may be wider than a phone, its caption outside of what scrolls."""
    return (
        f'<figure class="{kind}"><div class="scroll" role="img" aria-label="{escape(caption)}">'
        f"{plots.inline_svg(drawn)}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _provenance(lines: Sequence[tuple[str, str]]) -> Iterable[str]:
    if not lines:
        return
    yield "<h2>How this page came about</h2>"
    for what, value in lines:
        yield f'<p class="note">{escape(what)}: <code>{escape(value)}</code></p>'


def _page(title: str, body: str) -> str:
    on_light = " ".join(f"--{name}: {pair[0]};" for name, pair in plots.COLOURS.items())
    on_dark = " ".join(f"--{name}: {pair[1]};" for name, pair in plots.COLOURS.items())
    style = _STYLE % {"light": on_light, "dark": on_dark}
    script = Path(__file__).with_name("words.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style>"
        f"<script>{script}</script></head>\n<body>\n{body}\n</body></html>\n"
    )
