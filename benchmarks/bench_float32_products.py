"""Float32 products on CUDA cores: the shipped constants beside their records, and held out.

    NETTIME_REFERENCE=FOLDER python -m benchmarks.bench_float32_products [--fit]

FOLDER holds gpu_fp32_kernels.json (NeuSight's artifact): products and batches of products on three
cards. In both the second size of a record, N, is the inner one: with it, and tiles of 128 × 128,
batches on Ampere scatter by 4 %, with any other by 17 % and more. Records below 0.1 ms are left
out: they are the host's. Without --fit the shipped constants, which were fitted to all of these;
with it, a fit to a random half of each set, and what it says of the other half; minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwsim import InputError, load_device
from hwsim.devices.gpu import Gpu
from hwsim.gpu.matmul import DENSE, PARAMETERS, SINGLE, TILES, log_seconds

FILE = "gpu_fp32_kernels.json"
CARDS = {"NVIDIA A100-PCIE-40GB": "a100_40gb", "Tesla V100-PCIE-32GB": "v100",
         "NVIDIA A100 80GB PCIe": "a100"}  # fmt: skip
LEAST_MS = 0.1
# The records hold the host's part of a launch.
HOST_S = 3.7e-5
NOISE = 0.07


class Set(NamedTuple):
    """Products of one kind on one card: shapes (products, 5) and ln seconds."""

    card: str
    what: str
    device: Gpu
    shapes: np.ndarray
    log_s: np.ndarray

    def priced(self, member: np.ndarray) -> np.ndarray:
        """ln seconds by some constants."""
        square = self.what == "bmm" and self.device.batched == "square"
        tiles = "square" if square else "searched"
        peak = self.device.peak("float32")
        return log_seconds(
            member, DENSE, self.shapes, self.device.card, peak, "float32", tiles=tiles
        )


def sets(folder: Path) -> list[Set]:
    """Every set of the file."""
    found = []
    for name, rows in json.loads((folder / FILE).read_text("utf-8"))["devices"].items():
        device = load_device(CARDS[name])
        assert isinstance(device, Gpu)
        for what in ("linear", "bmm"):
            mine = [r for r in rows if r["op"] == what and r["ms"] > LEAST_MS]
            shapes = np.array([(r["M"], r["K"], r["N"], r["B"], 1.0) for r in mine], float)
            if what == "linear":
                shapes[:, 0] *= shapes[:, 3]
                shapes[:, 3] = 1.0
            log_s = np.log([1e-3 * r["ms"] for r in mine])
            found.append(Set(CARDS[name], what, device, shapes, log_s))
    return found


def fitted(parts: list[tuple[Set, np.ndarray]]) -> np.ndarray:
    """Constants by some products of each set; the level of a card that throttles is its own."""
    from scipy.optimize import least_squares

    many = len(PARAMETERS)
    start = np.array([p.dense for p in PARAMETERS])
    start[[0, 1, 2]] = HOST_S, 0.02, 0.95
    x0 = np.concatenate([np.log(start), np.zeros(len(TILES)), [0.08]])
    stray = np.concatenate([[p.scale for p in PARAMETERS], np.full(len(TILES), 0.15), [0.1]])

    def residuals(x: np.ndarray) -> np.ndarray:
        member = np.concatenate([np.exp(x[:many]), x[many:-1]])
        missed = np.concatenate([
            (s.priced(member) + x[-1] * (s.card == "a100_40gb") - s.log_s)[seen]
            for s, seen in parts
        ]) / NOISE  # fmt: skip
        robust = np.sign(missed) * np.sqrt(2.0 * (np.sqrt(1.0 + missed**2) - 1.0))
        return np.concatenate([robust, (x - x0) / stray])

    x = least_squares(residuals, x0, max_nfev=60, diff_step=1e-3).x
    return np.concatenate([np.exp(x[:many]), x[many:-1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="to a half, and price the other")
    options = parser.parse_args()
    folder = Path(os.environ.get("NETTIME_REFERENCE", ""))
    if not (folder / FILE).is_file():
        raise InputError(f"NETTIME_REFERENCE: {FILE} is not in {str(folder)!r}")
    found, rng = sets(folder), np.random.default_rng(0)
    seen = [rng.random(len(s.log_s)) < (0.5 if options.fit else -1.0) for s in found]
    member = fitted(list(zip(found, seen, strict=True))) if options.fit else np.array(SINGLE)
    member[0] = HOST_S
    for s, known in zip(found, seen, strict=True):
        missed = (s.priced(member) - s.log_s)[~known]
        error = 100 * float(np.abs(np.expm1(missed)).mean())
        print(f"{s.card:>10} {s.what:7} {len(missed):4d} error {error:5.1f} %, "
              f"bias {100 * missed.mean():+5.1f} %")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_float32_products: error: {error}") from None
