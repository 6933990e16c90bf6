"""The CPU kernels against the best dense and the best CSR, interleaved in one run.

    python benchmarks/bench_cpu_kernels.py [--density 0.1] [--rounds 15] [--layers 768x3072 …]

Per layer and batch: each kernel's time and its speed-up with quartiles over the fastest of the
dense variants (numpy and torch) and the fastest of the CSR variants (scipy and torch), with its
distance to the roof. One thread, timed by its own processor time. Totals over phases are sums of
the fastest samples. Activations of the tiled kernels are packed beforehand, since
packed activations can stay packed; `+ packing` adds it on both sides.

Roofs, all measured here. A kernel is shown beside the one that it is nearest to, its own limit:

    fma      its multiply-adds at the speed of the fastest dense product
    operand  batches: every multiply-add reads eight samples of its input, 32 bytes, from a tile
             of 48 KiB; at the speed at which vector loads of this machine go over such a tile
    load     one sample: every weight reads its input by a load of its own (the balanced kernel
             half of them; permutes find the others), at the rate of loads from the nearest cache
    bytes    values and indices (six bytes a weight, five balanced) and activations, once, at the
             speed at which this machine reads an array of that size
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import functools  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import numba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from hwsim import Mask  # noqa: E402
from hwsim.kernels.cpu import LINEAR  # noqa: E402
from hwsim.kernels.cpu._layout import TILE  # noqa: E402
from hwsim.kernels.cpu._tiled import Packed  # noqa: E402
from hwsim.kernels.cpu._vector import add_scaled, total, zeros  # noqa: E402
from hwsim.measure import CacheFlush, processor  # noqa: E402
from hwsim.measure import compare as compare_variants  # noqa: E402

torch.set_num_threads(1)
torch.set_grad_enabled(False)
warnings.filterwarnings("ignore", message="Sparse CSR")


def compare(variants, **options):
    return compare_variants(variants, clock=time.thread_time, **options)


class Case:
    """One layer and batch: variants of each phase by kind."""

    def __init__(self, rng, n_in, n_out, batch, density):
        self.n_in, self.n_out, self.batch = n_in, n_out, batch
        self.mask = Mask(rng.random((n_out, n_in)) < density)
        weights = rng.standard_normal((n_out, n_in)).astype(np.float32) * self.mask.array
        self.weights = weights
        self.x = rng.standard_normal((batch, n_in)).astype(np.float32)
        self.dy = rng.standard_normal((batch, n_out)).astype(np.float32)
        self.layers = {
            name: LINEAR.get(name)(self.mask, weights)
            for name in ("dense", "csr", "gather", "tiled", "sampled")
        }

    def forward(self):
        x, layers = self.x, self.layers
        weights, tx = torch.from_numpy(self.weights), torch.from_numpy(self.x)
        csr, xt = weights.to_sparse_csr(), torch.from_numpy(np.ascontiguousarray(x.T))
        found = {
            "dense numpy": lambda: layers["dense"].forward(x),
            "dense torch": lambda: torch.mm(tx, weights.T),
            "csr scipy": lambda: layers["csr"].forward(x),
            "csr torch": lambda: torch.mm(csr, xt),
            "gather": lambda: layers["gather"].forward(x),
        }
        if self.batch == 1:
            found["dense torch mv"] = lambda: torch.mv(weights, tx[0])
            found["csr torch mv"] = lambda: torch.mv(csr, tx[0])
        else:
            packed = Packed.of(x)
            found["tiled"] = lambda: layers["tiled"].matrix.multiply(packed)
            found["tiled + packing"] = lambda: layers["tiled"].forward(x)
            del found["gather"]
        return found

    def grad_input(self):
        dy, layers = self.dy, self.layers
        weights, tdy = torch.from_numpy(self.weights), torch.from_numpy(dy)
        packed = Packed.of(dy)
        csr = torch.from_numpy(np.ascontiguousarray(self.weights.T)).to_sparse_csr()
        dyt = torch.from_numpy(np.ascontiguousarray(dy.T))
        return {
            "dense numpy": lambda: layers["dense"].grad_input(dy),
            "dense torch": lambda: torch.mm(tdy, weights),
            "csr scipy": lambda: layers["csr"].grad_input(dy),
            "csr torch": lambda: torch.mm(csr, dyt),
            "tiled": lambda: layers["tiled"].transposed.multiply(packed),
            "tiled + packing": lambda: layers["tiled"].grad_input(dy),
        }

    def grad_weight(self):
        x, dy = self.x, self.dy
        tx, tdy = torch.from_numpy(x), torch.from_numpy(dy)
        px, pdy = Packed.of(x), Packed.of(dy)
        matrix = self.layers["sampled"].matrix
        return {
            "dense numpy": lambda: dy.T @ x,
            "dense torch": lambda: torch.mm(tdy.T, tx),
            "sampled": lambda: matrix.sampled_product(pdy, px),
            "sampled + packing": lambda: self.layers["sampled"].grad_weight(dy, x),
        }

    def roofs_s(
        self, dense_s: float, bytes_per_s: float, weight_bytes: float, loaded: float = 1.0
    ) -> dict[str, float]:
        """Seconds that each limit alone asks for; `loaded` of the inputs are found by loads."""
        moved = weight_bytes * self.mask.nnz + 4 * self.batch * (self.n_in + self.n_out)
        roofs = {"bytes": moved / bytes_per_s}
        if self.batch == 1:
            return roofs | {"load": loaded * self.mask.nnz / loads_per_s()}
        operands = 4.0 * self.batch * self.mask.nnz
        return roofs | {
            "fma": dense_s * self.mask.density,
            "operand": operands / operand_bytes_per_s(),
        }


def best(found, kind):
    return min((t for t in found.timings if t.name.startswith(kind)), key=lambda t: t.median_s)


@numba.njit
def _walk(tile, rounds, width):
    """Multiply-adds of eight samples each, over a tile again and again, eight sums side by side."""
    held = zeros(width)
    for _ in range(rounds):
        for start in range(0, tile.size, 64):
            held = add_scaled(held, tile[0], tile, start)
    return total(held)


def _walk_s(size: int, rounds: int) -> float:
    tile = np.full(size, 1e-9, np.float32)
    return compare({"walk": lambda: _walk(tile, rounds, (0,) * 64)}, rounds=15)["walk"].min_s


@functools.cache
def operand_bytes_per_s() -> float:
    """Of vector loads over a tile of 192 columns and 64 samples."""
    return 4.0 * TILE * 64 * 64 / _walk_s(TILE * 64, 64)


@functools.cache
def loads_per_s() -> float:
    """Loads from the nearest cache, of whatever width up to a vector's."""
    return 1024 / 8 * 512 / _walk_s(1024, 512)


def show(title, case, found, bytes_per_s, weight_bytes=6.0, loaded=1.0):
    print(f"{title}{'' if found.steady else '   (disturbed: median above 1.3 × minimum)'}")
    dense = best(found, "dense")
    csrs = [t for t in found.timings if t.name.startswith("csr")]
    csr = min(csrs, key=lambda t: t.median_s) if csrs else None
    roofs = case.roofs_s(dense.min_s, bytes_per_s, weight_bytes, loaded)
    limit = max(roofs, key=lambda name: roofs[name])
    print("  roofs: " + ", ".join(f"{name} {s * 1e3:.3f} ms" for name, s in roofs.items()))
    for timing in sorted(found.timings, key=lambda t: t.median_s):
        low, median, high = found.speed_up(timing.name, over=dense.name)
        line = (
            f"  {timing.name:<18} {timing.median_s * 1e3:8.3f} ms, least {timing.min_s * 1e3:.3f}"
        )
        line += f"   {median:5.2f}× dense"
        line += f" ({low:.2f} … {high:.2f})"
        if csr is not None:
            line += f"   {found.speed_up(timing.name, over=csr.name)[1]:5.2f}× csr"
        if not timing.name.startswith("dense"):
            line += f"   {roofs[limit] / timing.min_s:4.0%} of {limit} roof"
        print(line)
    return dense, csr


def show_layer(case, rounds):
    """All that a training step does with one layer, from row-major to row-major activations.

    Values are packed once, and so is each of x and dy; the gradient is spread over a dense weight.
    """
    tiled, weights, x, dy = case.layers["tiled"], case.weights, case.x, case.dy
    matrix, transposed = tiled.matrix, tiled.transposed

    def sparse():
        tiled.repack(weights)
        px, pdy = Packed.of(x), Packed.of(dy)
        matrix.multiply(px).rows()
        transposed.multiply(pdy).rows()
        matrix.spread(matrix.sampled_product(pdy, px))

    def dense():
        for product in (lambda: x @ weights.T, lambda: dy @ weights, lambda: dy.T @ x):
            product()

    found = compare({"sparse": sparse, "dense": dense}, rounds=rounds)
    low, median, high = found.speed_up("sparse", over="dense")
    print(
        f"  a layer's whole step, all packing included: {found['sparse'].min_s * 1e3:.3f} ms, "
        f"{median:.2f}× dense ({low:.2f} … {high:.2f})"
    )


def show_balanced(rng, n_in, n_out, rounds):
    """One sample through a balanced mask: three weights in every 32 inputs, 90.6 % sparse."""
    order = rng.random((n_out, n_in // 32, 32)).argsort(axis=2)
    case = Case(rng, n_in, n_out, 1, 0.1)
    case.mask = Mask((order < 3).reshape(n_out, n_in))
    case.weights = rng.standard_normal((n_out, n_in)).astype(np.float32) * case.mask.array
    names = ("dense", "csr", "gather", "balanced")
    case.layers = {name: LINEAR.get(name)(case.mask, case.weights) for name in names}
    variants = {
        **case.forward(),
        "balanced": lambda: case.layers["balanced"].forward(case.x),
    }
    speed = read_speed(5 * case.mask.nnz)
    # Cold: as in a network whose weights do not all stay in the caches from step to step.
    for state, before in (("warm", None), ("cold", CacheFlush())):
        found = compare(variants, rounds=rounds, before=before)
        show(f"{n_in}→{n_out}, batch 1, balanced mask, {state}", case, found, speed, 5.0, 0.5)


def show_two_four(rng, n_in, n_out, rounds):
    """One sample through a 2:4 mask, weights in float32 and in bfloat16, warm and cold."""
    order = rng.random((n_out, n_in // 4, 4)).argsort(axis=2)
    case = Case(rng, n_in, n_out, 1, 0.5)
    case.mask = Mask((order < 2).reshape(n_out, n_in))
    case.weights = rng.standard_normal((n_out, n_in)).astype(np.float32) * case.mask.array
    names = ("dense", "two_four", "two_four_bf16")
    case.layers = {name: LINEAR.get(name)(case.mask, case.weights) for name in names}
    weights, x = torch.from_numpy(case.weights), torch.from_numpy(case.x[0])
    variants: dict[str, Any] = {
        name: lambda n=name: case.layers[n].forward(case.x) for name in names
    }
    variants["dense torch mv"] = lambda: torch.mv(weights, x)
    speed = read_speed(round(4.25 * case.mask.nnz))
    for state, before in (("warm", None), ("cold", CacheFlush())):
        found = compare(variants, rounds=rounds, before=before)
        show(f"{n_in}→{n_out}, batch 1, 2:4 mask, {state}", case, found, speed, 4.25, 0.0)


def read_speed(nbytes: int) -> float:
    """Bytes a second of summing an array of that size."""
    data = np.ones(max(nbytes // 4, 1024), np.float32)
    return data.nbytes / compare({"read": data.max}, rounds=7)["read"].min_s


def narrower_break_even(rng, n_in, n_out, batch, rounds):
    """The kept share of a narrower dense layer that takes as long as the sparse one, by density."""
    widths = {k: max(8, round(k * n_out)) for k in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)}
    x = rng.standard_normal((batch, n_in)).astype(np.float32)
    weights = {
        kept: rng.standard_normal((width, n_in)).astype(np.float32)
        for kept, width in widths.items()
    }
    dense = {str(kept): lambda w=w: x @ w.T for kept, w in weights.items()}
    for density in (0.05, 0.1, 0.2):
        case = Case(rng, n_in, n_out, batch, density)
        if batch == 1:
            sparse = case.forward()["gather"]
        else:
            sparse = case.forward()["tiled"]
        found = compare({"sparse": sparse, **dense}, rounds=rounds, attempts=2)
        times = [found[name].median_s for name in dense]
        kept = np.interp(found["sparse"].median_s, times, [float(name) for name in dense])
        print(f"  density {density:.2f}: as fast as a dense layer of {kept:.0%} of the neurons")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", nargs="+", default=["768x3072", "3072x768"])
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(processor(), "· one thread · density", options.density)
    for text in options.layers:
        n_in, n_out = map(int, text.split("x"))
        for batch in (1, 256):
            case = Case(rng, n_in, n_out, batch, options.density)
            speed = read_speed(6 * case.mask.nnz)
            total = {"dense": 0.0, "sparse": 0.0, "with packing": 0.0}
            for phase in ("forward", "grad_input", "grad_weight")[: 1 if batch == 1 else 3]:
                found = compare(getattr(case, phase)(), rounds=options.rounds)
                title = f"{n_in}→{n_out}, batch {batch}, {phase}"
                dense, _ = show(title, case, found, speed)
                total["dense"] += dense.min_s
                ours = "gather" if batch == 1 else "sampled" if "weight" in phase else "tiled"
                total["sparse"] += found[ours].min_s
                total["with packing"] += found[ours if batch == 1 else f"{ours} + packing"].min_s
            ratio, packing = (total["dense"] / total[k] for k in ("sparse", "with packing"))
            print(f"  all phases: {ratio:.2f}× dense, {packing:.2f}× with packing")
            if batch > 1:
                show_layer(case, options.rounds)
            else:
                show_balanced(rng, n_in, n_out, options.rounds)
                show_two_four(rng, n_in, n_out, options.rounds)
            narrower_break_even(rng, n_in, n_out, batch, options.rounds)


if __name__ == "__main__":
    main()
