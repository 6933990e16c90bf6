"""Sparse products and steps, never fitted: measured speed-ups beside ours.

    NETTIME_REFERENCE=FOLDER python -m benchmarks.bench_sparse_steps [--rows]

FOLDER holds external/: 2:4 and block-sparse inference and training on an A100 80GB (pytorch/ao,
pytorch/tutorials), V:N:M inference of BERT-large and products of 2:4, CSR and V:N:M on an RTX 3090
(UDC-GAC/venom). What a data loader takes is in the block-sparse step as it was measured.
"Side" counts rows whose measured speed-up is below 0.95 or above 1.05 and ours on the same side.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.steps.models import workload_of
from analysis.steps.record import Step
from hwsim import InputError, Mask, Workload, gemm, load_device
from hwsim.device import Device

TILE = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
PHASES = ("forward", "grad_input", "grad_weight")
_BERT = {"base": {"hidden": 768, "layers": 12, "heads": 12, "ffn": 3072, "vocab": 28996},
         "large": {"hidden": 1024, "layers": 24, "heads": 16, "ffn": 4096,
                   "vocab": 30522}}  # fmt: skip
Row = Mapping[str, Any]


class Gain(NamedTuple):
    """A measured and an estimated speed-up over dense."""

    what: str
    measured: float
    ours: float

    @property
    def same_side(self) -> bool | None:
        if 0.95 <= self.measured <= 1.05:
            return None
        return (self.measured > 1.0) == (self.ours > 1.0)


@cache
def two_four(outputs: int, inputs: int) -> Mask:
    """2:4 along both sides, as training packs it."""
    return Mask(np.tile(TILE, (outputs // 4, inputs // 4)), copy=False)


@cache
def v_n_m(outputs: int, inputs: int, v: int, m: int) -> Mask:
    """Random V:2:M: four columns a block, two of them in each row."""
    rng = np.random.default_rng(0)
    blocks, groups = outputs // v, inputs // m
    columns = np.argsort(rng.random((blocks, 1, groups, m)), axis=3)[..., :4]
    columns = np.repeat(columns, v, axis=1)
    two = np.argsort(rng.random((blocks, v, groups, 4)), axis=3)[..., :2]
    array = np.zeros((blocks, v, groups, m), bool)
    np.put_along_axis(array, np.take_along_axis(columns, two, axis=3), True, axis=3)
    whole = array.reshape(outputs, groups * m)
    return Mask(np.pad(whole, ((0, 0), (0, inputs - groups * m))), copy=False)


@cache
def bert(size: str, batch: int, sequence: int, compiled: bool, attention: str) -> Workload:
    return workload_of(Step(
        "bert_squad" if size == "base" else "bert_encoder", "", "forward", batch, 1.0,
        _BERT[size], sequence, precision="float16", compiled=compiled, attention=attention,
    ))  # fmt: skip


def encoder(step: Workload) -> list[tuple[str, tuple[int, int]]]:
    """Linear layers of the encoder's blocks, and their shapes."""
    return [(n, s) for n, s in step.layers.items() if "encoder.layer" in n]


def gain(device: Device, dense: Workload, sparse: Workload) -> float:
    return device.estimate(dense).seconds / device.estimate(sparse).seconds


def layers(rows: int, *shapes: tuple[int, int]) -> Workload:
    """Forward and backward of linear layers, float16."""
    return Workload(tuple(
        gemm(rows, n, k, None, phase, "float16", name=f"layer{i}")
        for i, (n, k) in enumerate(shapes) for phase in PHASES
    ))  # fmt: skip


def sparse_steps(rows: list[Row]) -> list[Gain]:
    """2:4 on an A100: training with packing in the step, inference with packed weights."""
    trains = load_device("a100_sxm")
    infers = load_device("a100_sxm", packing="never")
    found = []

    def time(**wanted: Any) -> float:
        keys = {"pattern": "", **wanted}
        match = [r for r in rows if all(
            (str(r.get(k, "")).startswith(v) if k in ("pattern", "model") else r.get(k) == v)
            for k, v in keys.items()
        )]  # fmt: skip
        return float(match[0]["step_ms"])

    for model, size, shapes in (
        ("linear", 13008, ((4096, 1024),)),
        ("mlp", 44160, ((4096, 1024), (1024, 4096))),
    ):
        dense = layers(size, *shapes)
        masks = {n: two_four(*s) for n, s in dense.layers.items()}
        what = {"model": model, "m": size}
        measured = time(**what, pattern="dense") / time(**what, pattern="2:4")
        if model == "mlp":
            measured = time(**what, pattern="dense") / time(**what, pattern="2:4 weight")
        found.append(Gain(f"{model} {size}, forward and backward", measured,
                          gain(trains, dense, dense.with_masks(masks))))  # fmt: skip
    for batch in (16, 64):
        step = bert("base", batch, 384, True, "fused")
        masks = {n: two_four(*s) for n, s in encoder(step)}
        what = {"model": "bert_base", "batch": batch, "compiled": True}
        measured = time(**what, pattern="dense") / time(**what, pattern="2:4")
        found.append(Gain(f"BERT-base {batch} × 384, compiled", measured,
                          gain(infers, step, step.with_masks(masks))))  # fmt: skip
    product = Workload((gemm(3072, 3072, 10240, None, "forward", "float16", name="layer"),))
    what = {"model": "linear", "m": 3072}
    measured = time(**what, pattern="dense") / time(**what, pattern="2:4")
    found.append(Gain("linear 3072 × 10240, forward", measured,
                      gain(infers, product,
                           product.with_masks({"layer": two_four(3072, 10240)}))))  # fmt: skip
    return found


def vision_steps(rows: list[Row]) -> list[Gain]:
    """SAM's ViT-H under 2:4, ViT-B under blocks of 32: layers of the MLPs, or of attention too."""
    device = load_device("a100_sxm", packing="never")
    found = []
    sam = workload_of(Step(
        "timm:samvit_huge_patch16", "", "forward", 32, 1.0, image=1024, precision="bfloat16",
        compiled=True,
    ))  # fmt: skip
    rates = {r["pattern"]: r["images_per_s"] for r in rows if str(r["model"]).startswith("sam")}
    for pattern, parts in (("2:4 mlp", (".mlp.",)), ("2:4 attention+mlp", (".mlp.", ".attn."))):
        masks = {n: two_four(*s) for n, s in sam.layers.items() if any(p in n for p in parts)}
        found.append(Gain(f"SAM ViT-H 32 × 1024², {pattern}", rates[pattern] / rates["dense"],
                          gain(device, sam, sam.with_masks(masks))))  # fmt: skip
    vit = workload_of(Step(
        "timm:vit_base_patch16_224", "", "forward", 256, 1.0, image=224, precision="float32"
    ))  # fmt: skip
    times = {r["pattern"]: r["seconds"] for r in rows if r["model"] == "vit_b_16"}
    rng = np.random.default_rng(0)
    masks = {}
    for name, (n, k) in vit.layers.items():
        if ".mlp." in name:
            kept = rng.random((n // 32, k // 32)) < 0.1
            masks[name] = Mask(np.kron(kept, np.ones((32, 32), bool)))
    found.append(Gain("ViT-B/16, blocks of 32 at 90 %", times["dense"]
                      / times["block 32 at 90 %, bsr"],
                      gain(device, vit, vit.with_masks(masks))))  # fmt: skip
    return found


def v_n_m_steps(rows: list[Row]) -> list[Gain]:
    """BERT-large under V:2:M in all linear layers of its encoder; attention was not fused then."""
    device = load_device("rtx3090", packing="never")
    step = bert("large", 32, 512, False, "plain")
    found = []
    for dense, sparse in zip(rows[::2], rows[1::2], strict=True):
        v, _, m = (int(x) for x in sparse["pattern"].split(":"))
        masks = {n: v_n_m(*s, v, m) for n, s in encoder(step)}
        found.append(Gain(f"BERT-large {sparse['pattern']}", dense["step_ms"] / sparse["step_ms"],
                          gain(device, step, step.with_masks(masks))))  # fmt: skip
    return found


def products(rows: list[Row], kernel: str) -> tuple[list[Gain], np.ndarray]:
    """Single products on the RTX 3090: gains, and (density, estimated/measured seconds).

    Neither library was asked to search for an algorithm there: 2:4 times, and those of the dense
    products beside them, go by whole waves of 256 × 128 and 128 × 128 tiles. Dense products beside
    the other kernels accumulate in float16, which is priced as float32's.
    """
    algorithm = "default" if kernel == "cusparselt" else "searched"
    device = load_device("rtx3090", packing="never", algorithm=algorithm)
    rng = np.random.default_rng(0)
    found, ratios = [], []
    seen: set[tuple[int, ...]] = set()
    for row in rows:
        m, n, k = row["rows"], row["outputs"], row["inputs"]
        if kernel == "cusparselt" and row["kernel"] == kernel:
            mask, ours = two_four(n, k), "2:4"
        elif kernel == "spatha" and row["kernel"] == kernel and row["m"] >= 8:
            if n % row["v"] or (n, k, row["v"], row["m"]) in seen:
                continue
            seen.add((n, k, row["v"], row["m"]))
            mask, ours = v_n_m(n, k, row["v"], row["m"]), "v_n_m"
        elif kernel == "sputnik" and row["kernel"] == kernel:
            mask, ours = Mask(rng.random((n, k), dtype=np.float32) < row["density"]), "csr"
        else:
            continue
        op = gemm(m, n, k, mask, "forward", "float16")
        by = {e.kernel: e.seconds * 1e3 for e in device.kernels(op)}
        found.append(Gain(f"{kernel} {m} × {k} → {n}", row["dense_ms"] / row["sparse_ms"],
                          by["dense"] / by[ours]))  # fmt: skip
        ratios.append((row["density"], by[ours] / row["sparse_ms"]))
    return found, np.array(ratios)


def line(name: str, gains: list[Gain]) -> None:
    from scipy.stats import kendalltau

    missed = np.array([g.ours - g.measured for g in gains])
    tau = kendalltau([g.ours for g in gains], [g.measured for g in gains])[0]
    sides = [g.same_side for g in gains if g.same_side is not None]
    print(f"{name:28} {len(gains):3d} missed by {np.abs(missed).mean():.3f} "
          f"(mean {missed.mean():+.3f}), τ {tau:.2f}, "
          f"side {sum(sides)} of {len(sides)}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="every row")
    options = parser.parse_args()
    folder = Path(os.environ.get("NETTIME_REFERENCE", "")) / "external"
    if not (folder / "sparse_steps.json").is_file():
        raise InputError(f"NETTIME_REFERENCE: external/sparse_steps.json is not in {folder.parent}")

    def rows(name: str) -> list[Row]:
        return json.loads((folder / name).read_text(encoding="utf-8"))["rows"]

    csr, ratios = products(rows("venom_products.json"), "sputnik")
    for name, gains in (
        ("2:4 steps, A100 80GB", sparse_steps(rows("sparse_steps.json"))),
        ("ViTs, A100 80GB", vision_steps(rows("sparse_steps.json"))),
        ("V:N:M steps, RTX 3090", v_n_m_steps(rows("venom_inference.json"))),
        ("2:4 products, RTX 3090", products(rows("venom_products.json"), "cusparselt")[0]),
        ("CSR products, RTX 3090", csr),
        ("V:N:M, ours beside Spatha", products(rows("venom_products.json"), "spatha")[0]),
    ):
        line(name, gains)
        for g in gains if options.rows else ():
            print(f"    {g.what:44} measured {g.measured:.2f}, ours {g.ours:.2f}")
    slope = np.polyfit(np.log2(ratios[:, 0]), np.log(ratios[:, 1]), 1)[0]
    print(f"CSR products: seconds missed by {100 * np.abs(ratios[:, 1] - 1).mean():.1f} %, "
          f"slope a doubling of the density {slope:+.3f}")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_sparse_steps: error: {error}") from None
