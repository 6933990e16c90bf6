"""A small cluster and a small step, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hwsim import Device, Mask, Op, Workload, gemm, load_device
from hwsim.cluster.machine import Cluster, Link

H100 = load_device("h100_sxm")


def machine_of(
    cards: int = 8,
    nodes: int = 1,
    fast_link: float = 1e11,
    slow: float = 1e10,
    device: Device = H100,
) -> Cluster:
    return Cluster("test", device, nodes, cards, 8e10, Link(fast_link, 1e-5, 0.8),
                   Link(slow, 2e-5, 0.9))  # fmt: skip


def _block(i: int, rows: int, width: int, heads: int) -> list[Op]:
    name = f"blocks.{i}"
    shapes = {f"{name}.up": (4 * width, width), f"{name}.down": (width, 4 * width)}
    products = [gemm(rows, *shape, None, phase, "bfloat16", name=layer)
                for phase in ("forward", "grad_input", "grad_weight")
                for layer, shape in shapes.items()]  # fmt: skip
    norm = Op("norm", "forward", f"{name}.norm", rows, width, dtype="bfloat16",
              activation_bytes=4 * rows * width)  # fmt: skip
    attention = Op("attention", "forward", name, rows, rows, width // heads, heads, "bfloat16",
                   dense_flops=4 * rows * rows * width, activation_bytes=8 * rows * width,
                   fused=True)  # fmt: skip
    update = [Op("optimizer", "update", layer, dtype="bfloat16",
                 dense_flops=13 * shape[0] * shape[1],
                 weight_bytes=14 * shape[0] * shape[1], weight_shape=shape)
              for layer, shape in shapes.items()]  # fmt: skip
    return [norm, attention, *products, *update]


def step_of(
    layers: int = 4, rows: int = 512, width: int = 256, masks: Mapping[str, Mask] | None = None
) -> Workload:
    """Blocks of two products, `blocks.i.up` and `blocks.i.down`, and an attention between."""
    step = Workload(tuple(op for i in range(layers) for op in _block(i, rows, width, 8)))
    return step.with_masks(masks) if masks else step


def masks_of(step: Workload, draw: Callable[[tuple[int, int]], np.ndarray]) -> dict[str, Mask]:
    return {name: Mask(draw(shape)) for name, shape in step.layers.items()}
