"""Records of GPU products that no card has made: a specification's own prices."""

from pathlib import Path

import numpy as np

from hwsim import load_device
from hwsim.gpu.rules import Product
from hwsim.measured.record import Measurement, write_measurements


def write_products(path: Path, name: str) -> None:
    """Ten shapes, dense and 2:4, as the device of that name prices them."""
    card, rng = load_device(name), np.random.default_rng(0)
    shapes = [(int(2 ** rng.integers(6, 14)), 1024 + 256 * i, 2048) for i in range(10)]
    write_measurements(path, [
        Measurement.of_median(
            card.product_seconds(kernel, "bfloat16", Product(*shape)), machine="made up",
            toolchain="none", kernel=kernel, phase="forward", m=shape[0], n=shape[1], k=shape[2],
            dtype="bfloat16", rounds=1, density=1.0 if kernel == "dense" else 0.5,
        )
        for shape in shapes
        for kernel in ("dense", "2:4")
    ])  # fmt: skip
