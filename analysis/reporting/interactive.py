"""The part of a report that scripts make: curves with their data in the page, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.reporting.contenders import ReportedRun, devices_of
from analysis.reporting.plots import DASHES, FAMILY_COLOURS

_SPREAD = 4.0  # Ratio of the longest to the shortest run from which time is logarithmic at first.


def section(contenders: Sequence[ReportedRun]) -> str:
    """An empty place, its data as JSON, and the script that fills it."""
    # A run's name may hold "</script>"; as JSON "<" can be written so that HTML does not see it.
    text = json.dumps(_data(contenders), ensure_ascii=False, allow_nan=False).replace(
        "<", "\\u003c"
    )
    script = Path(__file__).with_name("chart.js").read_text(encoding="utf-8")
    return (
        '<div id="charts" hidden></div>\n'
        f'<script type="application/json" id="data">{text}</script>\n<script>{script}</script>'
    )


def _data(contenders: Sequence[ReportedRun]) -> dict[str, Any]:
    devices = devices_of(contenders)
    ends = [c.seconds[d].expected[-1] for c in contenders for d in devices]
    return {
        "devices": devices,
        "log_time": bool(min(ends) > 0 and max(ends) > _SPREAD * min(ends)),
        "runs": [
            {
                "name": c.name,
                "steps": c.steps.tolist(),
                "losses": _numbers(c.losses),
                "colour": FAMILY_COLOURS.get(c.family, FAMILY_COLOURS["other"]),
                "dash": _dash(contenders, place),
                "place": place,
                "seconds": {
                    device: {
                        name: _numbers(getattr(c.seconds[device], name))
                        for name in ("expected", "low", "high")
                    }
                    for device in devices
                },
            }
            for place, c in enumerate(contenders)
        ],
    }


def _dash(contenders: Sequence[ReportedRun], place: int) -> str:
    """As `plots.line_styles` has it: by place among those of one colour."""
    family = contenders[place].family
    among = sum(c.family == family for c in contenders[:place])
    dash = DASHES[among % len(DASHES)]
    return "" if dash == "-" else " ".join(f"{1.8 * part:g}" for part in dash[1])


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]
