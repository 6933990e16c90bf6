"""The CPU kernels against the best dense and the best CSR, interleaved in one run.

    python benchmarks/bench_cpu_kernels.py [--density 0.1] [--rounds 15] [--layers 768x3072 …]

Per layer and batch: each kernel's time and its speed-up with quartiles over the fastest of the
dense variants (numpy and torch) and the fastest of the CSR variants (scipy and torch), with its
distance to the roof. One thread, timed by its own processor time. Totals over phases are sums of
the fastest samples. Activations of the tiled kernels are packed beforehand, since
packed activations can stay packed; `+ packing` adds it on both sides.

Roofs, all measured here. A kernel is shown beside the one that it is nearest to, its own limit:

    fma      its multiply-adds at the speed of the fastest dense product
    operand  batches: every multiply-add reads eight samples of its input, by a load each, at the
             rate of vector loads from the nearest cache; the tile of inputs is larger than that
    load     one sample: every weight reads its input by a load of its own, at the rate of loads
             from the nearest cache
    step     one sample, look-up: its steps for eight rows each, idle lanes included, at the rate
             of the same steps over weights in the nearest cache
    bytes    values and indices (six bytes a weight; look-up 38 bytes a step, 22 in bfloat16) and
             activations, once, at the speed at which this machine reads an array of that size;
             in rows that say cold, after all caches were emptied
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
from hwsim.kernels.cpu.linear.lookup import planned_steps  # noqa: E402
from hwsim.kernels.cpu.lookup_passes import add_lookups  # noqa: E402
from hwsim.kernels.cpu.tiled import PackedActivations  # noqa: E402
from hwsim.kernels.cpu.vector import add_scaled, total, zeros  # noqa: E402
from hwsim.measured.timing import CacheFlush, processor  # noqa: E402
from hwsim.measured.timing import compare as compare_variants  # noqa: E402

torch.set_num_threads(1)
torch.set_grad_enabled(False)
warnings.filterwarnings("ignore", message="Sparse CSR")


def compare(variants, **options):
    return compare_variants(variants, clock=time.thread_time, **options)


FLUSH = CacheFlush()
LOOKUP = ("lookup", "lookup_bf16")
STEP_BYTES = {"lookup": 38.0, "lookup_bf16": 22.0}


class Case:
    """One layer and batch: variants of each phase by kind."""

    def __init__(self, rng, n_in, n_out, batch, density):
        self.n_in, self.n_out, self.batch = n_in, n_out, batch
        self.cold = False  # whether caches are emptied before each call
        self.mask = Mask(rng.random((n_out, n_in)) < density)
        weights = rng.standard_normal((n_out, n_in)).astype(np.float32) * self.mask.array
        self.weights = weights
        self.x = rng.standard_normal((batch, n_in)).astype(np.float32)
        self.dy = rng.standard_normal((batch, n_out)).astype(np.float32)
        self.layers = {
            name: LINEAR.get(name)(self.mask, weights)
            for name in ("dense", "csr", "tiled", "sampled", "gather", *LOOKUP)
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
        }
        if self.batch == 1:
            for name in ("gather", *LOOKUP):
                found[name] = lambda name=name: layers[name].forward(x)
            found["dense torch mv"] = lambda: torch.mv(weights, tx[0])
            found["csr torch mv"] = lambda: torch.mv(csr, tx[0])
        else:
            packed = PackedActivations.of(x)
            found["tiled"] = lambda: layers["tiled"].matrix.multiply(packed)
            found["tiled + packing"] = lambda: layers["tiled"].forward(x)
        return found

    def grad_input(self):
        dy, layers = self.dy, self.layers
        weights, tdy = torch.from_numpy(self.weights), torch.from_numpy(dy)
        packed = PackedActivations.of(dy)
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
        px, pdy = PackedActivations.of(x), PackedActivations.of(dy)
        matrix = self.layers["sampled"].matrix
        return {
            "dense numpy": lambda: dy.T @ x,
            "dense torch": lambda: torch.mm(tdy.T, tx),
            "sampled": lambda: matrix.sampled_product(pdy, px),
            "sampled + packing": lambda: self.layers["sampled"].grad_weight(dy, x),
        }

    def roofs_s(self, kernel: str, dense_s: float) -> dict[str, float]:
        """Seconds that each limit alone asks a kernel for."""
        if self.batch == 1 and kernel in LOOKUP:
            steps = planned_steps(self.mask, False)
            return {
                "bytes": self.bytes_s(STEP_BYTES[kernel] * steps),
                "step": steps / steps_per_s(),
            }
        if self.batch == 1:
            nnz = self.mask.nnz
            each = 4.25 if kernel == "two_four" else 2.25 if kernel == "two_four_bf16" else 6.0
            roofs = {"bytes": self.bytes_s(each * nnz)}
            return roofs if "two_four" in kernel else roofs | {"load": nnz / loads_per_s()}
        return {
            "bytes": self.bytes_s(6.0 * self.mask.nnz),
            "fma": dense_s * self.mask.density,
            "operand": self.batch * self.mask.nnz / 8 / loads_per_s(),
        }

    def bytes_s(self, weight_bytes: float) -> float:
        moved = weight_bytes + 4 * self.batch * (self.n_in + self.n_out)
        return moved / read_speed(round(weight_bytes), self.cold)


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


@functools.cache
def loads_per_s() -> float:
    """Loads from the nearest cache, of whatever width up to a vector's; the faster of two sizes."""
    variants = {
        f"{size}": lambda size=size: _walk(
            np.full(size, 1e-9, np.float32), (1 << 20) // size, (0,) * 64
        )
        for size in (2048, 4096)
    }
    found = compare(variants, rounds=41)
    return (1 << 20) / 8 / min(timing.min_s for timing in found.timings)


@numba.njit
def _step(starts, words, values, x, rounds, width):
    held = zeros(width)
    for _ in range(rounds):
        for step in range(0, starts.size, 8):
            held = add_lookups(held, x, 0, starts, words, values, step)
    return total(held)


@functools.cache
def steps_per_s() -> float:
    """Of look-ups for eight rows, all that they read being 10 KiB."""
    steps, rounds = 192, 256
    starts = np.arange(0, 8 * steps, 8) % 760
    words = np.arange(steps, dtype=np.uint32) * np.uint32(0x9E3779B9)
    values, x = np.full(8 * steps, 1e-9, np.float32), np.full(768, 1e-9, np.float32)
    given = (starts.astype(np.uint16), words, values, x, rounds, (0,) * 8)
    return steps * rounds / compare({"step": lambda: _step(*given)}, rounds=15)["step"].min_s


def show(title, case, found):
    print(f"{title}{'' if found.steady else '   (disturbed: median above 1.3 × minimum)'}")
    dense = best(found, "dense")
    csrs = [t for t in found.timings if t.name.startswith("csr")]
    csr = min(csrs, key=lambda t: t.median_s) if csrs else None
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
            roofs = case.roofs_s(timing.name.split()[0], dense.min_s)
            limit = max(roofs, key=lambda name: roofs[name])
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
        px, pdy = PackedActivations.of(x), PackedActivations.of(dy)
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


def balanced(rng, n_in, n_out):
    """Masks with 3 of 32 weights, of which lanes of the look-up are busy as far as their pattern
    lets them, by title."""
    order = rng.random((n_out, n_in // 32, 32)).argsort(axis=2)
    yield "3 weights in every 32 inputs", (order < 3).reshape(n_out, n_in)
    order = rng.random((n_out, n_in // 8, 8)).argsort(axis=2)
    blocks = rng.random((n_out // 8, n_in // 8)).argsort(axis=1) < n_in * 3 // 32
    used = (order < 1) & blocks.repeat(8, axis=0)[:, :, None]
    yield "balanced:8,8, a weight in 3 of 4 blocks", used.reshape(n_out, n_in)


def show_balanced(rng, n_in, n_out, rounds):
    """One sample through balanced masks, 90.6 % sparse."""
    for title, array in balanced(rng, n_in, n_out):
        case = Case(rng, n_in, n_out, 1, 0.1)
        case.mask = Mask(array)
        case.weights = rng.standard_normal((n_out, n_in)).astype(np.float32) * array
        names = ("dense", "csr", "gather", *LOOKUP)
        case.layers = {name: LINEAR.get(name)(case.mask, case.weights) for name in names}
        # Cold: as in a network whose weights do not all stay in the caches from step to step.
        for state, before in (("warm", None), ("cold", FLUSH)):
            case.cold = state == "cold"
            found = compare(case.forward(), rounds=rounds, before=before)
            show(f"{n_in}→{n_out}, batch 1, {title}, {state}", case, found)


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
    for state, before in (("warm", None), ("cold", FLUSH)):
        case.cold = state == "cold"
        found = compare(variants, rounds=rounds, before=before)
        show(f"{n_in}→{n_out}, batch 1, 2:4 mask, {state}", case, found)


@functools.cache
def read_speed(nbytes: int, cold: bool) -> float:
    """Bytes a second of finding the largest of an array of that size."""
    data = np.ones(max(nbytes // 4, 1024), np.float32)
    found = compare({"read": data.max}, rounds=7, before=FLUSH if cold else None)
    return data.nbytes / found["read"].min_s


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
            sparse = case.forward()["lookup"]
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
            total = {"dense": 0.0, "sparse": 0.0, "with packing": 0.0}
            for phase in ("forward", "grad_input", "grad_weight")[: 1 if batch == 1 else 3]:
                found = compare(getattr(case, phase)(), rounds=options.rounds)
                title = f"{n_in}→{n_out}, batch {batch}, {phase}"
                dense, _ = show(title, case, found)
                total["dense"] += dense.min_s
                ours = "lookup" if batch == 1 else "sampled" if "weight" in phase else "tiled"
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
