"""How well steps on many cards are priced, against public measurements.

    NETTIME_REFERENCE=FOLDER python benchmarks/bench_cluster.py [--rows]

FOLDER holds llm_training_steps.json, gpu_model_steps.json and megatron_steps.json. Links are by
data sheets and NCCL's published rates. Each FSDP row is priced by a card, and by what collectives
cost the kernels beside them, fitted to rows of other models; the other sets by specifications.
Error is the mean of |estimated/measured − 1|, bias the mean log ratio; slopes are of the log
ratio per doubling.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.steps.models import workload_of
from analysis.steps.record import Step
from benchmarks._sharded_steps import MACHINES, Sharded, decoder, held_out_sharded, machine
from hwsim import InputError, load_device
from hwsim.cluster.memory import need
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.step import cluster_step
from hwsim.devices.gpu import Gpu


def four_cards(row: dict[str, Any]) -> float:
    """Estimated over measured seconds of a float32 step on four cards; its batch is global."""
    kind = row["option"][:2]
    sizes = {k: row[k] for k in ("hidden", "layers", "heads", "ffn", "vocab")}
    batch = row["batch"] // 4 if kind == "dp" else row["batch"]
    step = workload_of(Step("gpt2", "", "training", batch, 1.0, sizes, row["seq"],
                            attention="plain"))  # fmt: skip
    plan = ParallelPlan("ddp", **{kind: 4})
    found = cluster_step(machine(MACHINES[row["device"]]).of(4), step, plan)
    return found.seconds * 1e3 / row["total_ms"]


def megatron(row: dict[str, Any]) -> dict[str, float]:
    """Estimated over measured: seconds and GiB of both recomputations.

    With dropout, which the paper's activations (section 4.1) have masks of.
    """
    step, parts = decoder(row["hidden"], row["layers"], row["heads"], 51200, row["micro_batch"],
                          2048, "plain", dropout=0.1, megatron=True)  # fmt: skip
    tp, pp, v = row["tensor"], row["pipeline"], row["interleave"]
    micro = row["batch"] // row["micro_batch"]
    cluster = machine("dgx_a100").of(row["gpus"])
    found = {}
    for key, recompute, sequence in (
        ("seconds_full_recompute", "full", False),
        ("seconds_selective_and_sequence_parallel", "selective", True),
        ("activations_gib_no_recompute", "none", False),
        ("activations_gib_selective_and_sequence_parallel", "selective", True),
    ):
        plan = ParallelPlan("ddp", 1, tp, pp, sequence, v, micro, recompute, gradient_bytes=4.0)
        if key.startswith("seconds"):
            found[key] = cluster_step(cluster, step, plan).seconds / row[key]
        else:
            found[key] = need(parts, plan).activations / 2**30 / row[key]
    plan = ParallelPlan("ddp", 1, tp, pp, False, v, micro, gradient_bytes=4.0)
    found["model_state_gib"] = need(parts, plan).states / 2**30 / row["model_state_gib"]
    return found


def folded(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Estimated over measured seconds of FSDP steps, each by a fit to other models."""
    found: dict[int, float] = {}
    for gpu in {row["gpu"] for row in rows}:
        device = load_device(machine(MACHINES[gpu]).device.name)
        assert isinstance(device, Gpu)
        mine = [Sharded(row) for row in rows if row["gpu"] == gpu]
        for row, held in zip(mine, held_out_sharded(device, mine), strict=True):
            found[id(row.row)] = held.estimated_s / held.timed.seconds
    return [found[id(row)] for row in rows]


def line(name: str, ratios: Sequence[float], **along: Sequence[float]) -> None:
    logs = np.log(ratios)
    text = f"{name:44} {len(logs):4d} {100 * np.abs(np.expm1(logs)).mean():7.1f} % "
    text += f"{100 * logs.mean():+7.1f} %"
    for label, values in along.items():
        if len(set(values)) > 2:
            text += f"  slope/{label} {np.polyfit(np.log2(values), logs, 1)[0]:+.3f}"
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="every row")
    options = parser.parse_args()
    folder = Path(os.environ.get("NETTIME_REFERENCE", ""))
    if not (folder / "llm_training_steps.json").is_file():
        raise InputError(f"NETTIME_REFERENCE: llm_training_steps.json is not in {str(folder)!r}")

    def rows(name: str) -> list[dict[str, Any]]:
        return json.loads((folder / name).read_text(encoding="utf-8"))["rows"]

    print(f"{'set':44} {'n':>4} {'error':>9} {'bias':>9}")
    steps = rows("llm_training_steps.json")
    ratios = folded(steps)
    if options.rows:
        for row, ratio in zip(steps, ratios, strict=True):
            print(f"  {row['gpu']} {row['model']} {row['seq']} gpus {row['gpus']} batch "
                  f"{row['micro_batch']} recompute {row['activation_checkpointing']} "
                  f"{ratio:.3f}")  # fmt: skip
    groups = {"all": lambda r: True, **{
        f"{card}, {'many nodes' if many else 'one node'}":
        (lambda r, c=card, m=many: r["gpu"] == c and (r["gpus"] > 8) == m)
        for card in sorted({row["gpu"] for row in steps}) for many in (False, True)
    }}  # fmt: skip
    for name, chosen in groups.items():
        mine = [(r, x) for r, x in zip(steps, ratios, strict=True) if chosen(r)]
        if mine:
            line(f"FSDP, {name}", [x for _, x in mine], gpus=[r["gpus"] for r, _ in mine],
                 sequence=[r["seq"] for r, _ in mine])  # fmt: skip
    for row in rows("megatron_steps.json"):
        for key, ratio in megatron(row).items():
            print(f"Megatron {row['model']} {key:50} {ratio:.3f}")
    four = [r for r in rows("gpu_model_steps.json") if r["option"][:2] in ("dp", "tp", "pp")]
    try:
        found = [four_cards(row) for row in four]
    except InputError as error:
        print(f"four cards: left out ({error})")
        return
    for row, ratio in zip(four, found, strict=True):
        others = row["others_say_ms"].get("neusight", float("nan")) / row["total_ms"]
        print(f"  {row['device']} {row['model']} {row['option']} {ratio:.3f}, NeuSight "
              f"{others:.3f}")  # fmt: skip
    line("four cards, float32", found)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_cluster: error: {error}") from None
