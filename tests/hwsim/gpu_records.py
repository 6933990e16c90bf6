"""The public 2:4 bench as Measurement records, read in place where it is; never copied."""

import json
import os
from pathlib import Path

import pytest

from hwsim.measured.record import Measurement

_ROOT = Path(__file__).parents[2]
FILE = (
    Path(os.environ.get("NETTIME_REFERENCE", _ROOT.parent / "shared" / "reference"))
    / "gpu_24_vllmbench.json"
)
DTYPES = {"BF16": "bfloat16", "FP16": "float16", "INT8": "int8", "FP8": "float8"}
CARDS = {"A100": "a100", "H100": "h100", "B200": "b200", "RTX4090": "rtx4090"}
COLUMNS = (("dense_us", "dense", "cuBLASLt"), ("sparse24_us", "2:4", "cuSPARSELt"))

needs_bench = pytest.mark.skipif(
    not FILE.exists(), reason=f"{FILE.name} is not here: set NETTIME_REFERENCE to its folder"
)


def bench_records(gpu):
    """Records of one card of the bench, all its dtypes but fp4."""
    rows = json.loads(FILE.read_text())["rows"]
    return [
        Measurement.of_median(
            row[column] * 1e-6, machine=gpu, toolchain=library, kernel=kernel, phase="forward",
            m=row["M"], n=row["N"], k=row["K"], dtype=DTYPES[row["dtype"]], rounds=50,
            density=1.0 if kernel == "dense" else 0.5,
        )
        for row in rows
        if row["gpu"] == gpu and row["dtype"] in DTYPES
        for column, kernel, library in COLUMNS
        if row[column]
    ]  # fmt: skip
