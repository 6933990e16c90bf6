"""Dense or 2:4, per group of layers: the answer of `nettime estimate` on a GPU, for people and
machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwsim import Device, Workload

if TYPE_CHECKING:
    from hwsim.answers.gpu_choice import LayerChoice


def answers(
    devices: Sequence[Device], dense: Workload, masked: Workload
) -> dict[str, list[LayerChoice]]:
    """Device → its answers; only GPUs answer, since only they have a 2:4 unit."""
    gpus = [device for device in devices if device.model == "gpu"]
    if not gpus or not masked.masks:
        return {}
    from hwsim.answers.gpu_choice import layer_choices

    return {device.name: layer_choices(device, dense, masked) for device in gpus}


def as_json(choices: Sequence[LayerChoice]) -> list[dict[str, Any]]:
    """Seconds throughout; a group's layers have equal shape, price and reason."""
    return [
        {
            "layers": list(c.layers), "rows": c.rows, "weight_shape": list(c.shape),
            "dense_s": c.dense_s, "masked_s": c.masked_s, "speed_up": c.speed_up,
            "answer": c.answer, "why": c.why,
            "phases": [
                {
                    "phase": p.phase, "kernel": p.chosen.kernel, "seconds": p.chosen.seconds,
                    "dense_s": p.dense.seconds,
                    "two_four_s": p.two_four.seconds if p.two_four.legal else None,
                    "pack_s": p.pack_s, "two_four_reason": p.two_four.reason,
                    "v_n_m_s": p.v_n_m.seconds if p.v_n_m.legal else None,
                    "v_n_m_reason": p.v_n_m.reason,
                }
                for p in c.phases
            ],
        }
        for c in choices
    ]  # fmt: skip


def paragraphs(choices: Sequence[LayerChoice]) -> list[tuple[str, list[str]]]:
    """Per group of layers: a heading, and its reasons. Times are of one layer's whole step."""
    from hwsim import units

    return [
        (
            f"{label(c.layers)} ({c.shape[0]}×{c.shape[1]}): {c.answer}. One layer's step: "
            f"{units.seconds(c.dense_s)} dense, {units.seconds(c.masked_s)} masked.",
            c.why.split("; "),
        )
        for c in choices
    ]


def summary(device: str, choices: Sequence[LayerChoice]) -> str:
    """How many layers run faster masked, by kernel."""
    counts: dict[str, int] = {}
    for c in choices:
        counts[c.answer] = counts.get(c.answer, 0) + len(c.layers)
    said = ", ".join(f"{kernel} for {count}" for kernel, count in sorted(counts.items()))
    return f"On {device}, of {sum(counts.values())} layers: {said}."


def label(layers: Sequence[str], most: int = 3) -> str:
    """Names of a group, numbers as *: "72 × encoder.*.query, encoder.*.key, …".

    >>> label(["encoder.0.up", "encoder.1.up"]), label(["head"])
    ('2 × encoder.*.up', 'head')
    """
    if len(layers) == 1:
        return layers[0]
    names = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", n) for n in layers))
    shown = ", ".join(names[:most]) + (", …" if len(names) > most else "")
    return f"{len(layers)} × {shown}"
