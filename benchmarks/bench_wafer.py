"""What placement, zero activations and very thin masks are worth on the wafer.

    python benchmarks/bench_wafer.py

Three tables, all from prices, so they are the same on every machine:

- placement: gain over contiguous columns, forward of 768×3072 with 1,024 tokens; by the columns
  alone (stream and ports without limit) and on the shipped device.
- activations: gain from the share of x that a ReLU made zero, per phase.
- thin masks: gain over the dense kernel, how much of 1 / density is kept, and the price on one CPU
  core (`zen4`) over the wafer's. A CS-3 was measured at 100 times a CPU at 90 % sparsity and slower
  than it beyond 99 % (arXiv 2604.27985): another CPU and other sizes, so the shape of the curve is
  what can be compared, not its height.
"""

from __future__ import annotations

import argparse

import numpy as np

from hwsim import Mask, gemm, load_device

TOKENS = 1024
PLACEMENTS = ("contiguous", "interleaved", "balanced")
UNLIMITED = {"stream_bandwidth": 1e30, "broadcast_bytes": 1e20, "port_bytes": 1e20}
PHASES = ("forward", "grad_input", "grad_weight")


def random_mask(rows: int, columns: int, density: float, skewed: bool) -> Mask:
    """Unstructured; when skewed, inputs differ in their share, and neighbours are alike."""
    share = np.full(columns, density)
    if skewed:
        share = np.linspace(0.1, 1.0, columns) ** 2
        share = np.minimum(share * density / share.mean(), 1.0)
    return Mask(np.random.default_rng(0).random((rows, columns), dtype=np.float32) < share)


def placements() -> None:
    print("placement: gain over contiguous, columns alone (on the shipped wafer)")
    print(f"{'mask':>10} {'density':>8} {'interleaved':>16} {'balanced':>16}")
    for skewed in (False, True):
        for density in (0.2, 0.1, 0.01):
            mask = random_mask(768, 3072, density, skewed)
            op = gemm(TOKENS, *mask.shape, mask)
            row = f"{'skewed' if skewed else 'random':>10} {density:8.0%}"
            free, shipped = (
                [_sparse_s(load_device("wafer", placement=p, **more), op) for p in PLACEMENTS]
                for more in (UNLIMITED, {})
            )
            for i in (1, 2):
                row += f" {free[0] / free[i]:8.2f} ({shipped[0] / shipped[i]:4.2f})"
            print(row)


def activations() -> None:
    print("\nactivations: gain over activation_density 1, 768×3072 at density 10 %, columns alone")
    print(f"{'density of x':>13} " + " ".join(f"{p:>12}" for p in PHASES))
    mask = random_mask(768, 3072, 0.1, skewed=False)
    ops = [gemm(16 * TOKENS, *mask.shape, mask, phase) for phase in PHASES]
    full = [_sparse_s(load_device("wafer", **UNLIMITED), op) for op in ops]
    for share in (0.5, 0.1):
        device = load_device("wafer", activation_density=share, **UNLIMITED)
        gains = [one / _sparse_s(device, op) for one, op in zip(full, ops, strict=True)]
        print(f"{share:13.0%} " + " ".join(f"{gain:12.2f}" for gain in gains))


def thin_masks() -> None:
    size, tokens = 4096, 256
    print(f"\nthin masks: {size}×{size}, {tokens} tokens, forward")
    print(f"{'sparsity':>9} {'gain':>8} {'of 1/density':>13} {'limited by':>11} {'zen4/wafer':>11}")
    wafer, cpu = load_device("wafer"), load_device("zen4")
    dense = wafer.estimate(gemm(tokens, size, size)).seconds
    for density in (0.5, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
        op = gemm(tokens, size, size, random_mask(size, size, density, skewed=False))
        price = wafer.estimate(op)
        gain = dense / price.seconds
        print(
            f"{1 - density:9.1%} {gain:8.1f} {gain * density:13.0%} {price.bound:>11} "
            f"{cpu.estimate(op).seconds / price.seconds:11.0f}"
        )


def _sparse_s(device, op) -> float:
    return next(e.seconds for e in device.kernels(op) if e.kernel == "sparse")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    placements()
    activations()
    thin_masks()


if __name__ == "__main__":
    main()
