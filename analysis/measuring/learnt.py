"""CPU kernels on the masks and weights that runs ended with, against dense and CSR libraries.

Per layer and batch: every kernel of ours that can take it, the best of two dense libraries (numpy
and torch) and the best of two CSR libraries (scipy and torch), timed in the same shuffled rounds.
Beside the learnt mask stands one drawn at random with as many weights, so that what learning does
to a mask's shape is seen in the kernel's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwsim import InputError, Mask
from hwsim.checks import check_integer

BATCHES = (1, 256)
ROUNDS = 15
_DENSE, _CSR = ("dense numpy", "dense torch"), ("csr scipy", "csr torch")


@dataclass(frozen=True)
class TimedLayer:
    """A layer's forward product, y = x Wᵀ, under one mask.

    Attributes:
        run: its folder's name.
        algorithm: of the run.
        layer: its name.
        shape: (n_out, n_in) of the mask.
        nnz: active weights.
        empty: outputs without any weight: ablated neurons.
        widest: most weights of an output.
        batch: samples.
        drawn: whether the mask is a random one of as many weights instead.
        seconds: kernel or library → median seconds of a call.
        steady: whether nothing else disturbed the timing.
    """

    run: str
    algorithm: str
    layer: str
    shape: tuple[int, int]
    nnz: int
    empty: int
    widest: int
    batch: int
    drawn: bool
    seconds: dict[str, float]
    steady: bool

    @property
    def density(self) -> float:
        """Active share of the weights."""
        return self.nnz / (self.shape[0] * self.shape[1])

    @property
    def best(self) -> str:
        """The fastest of our kernels."""
        own = [name for name in self.seconds if name not in _DENSE + _CSR]
        return min(own, key=lambda name: self.seconds[name])

    @property
    def over_dense(self) -> float:
        """How many times as fast as the faster dense library our fastest kernel is."""
        return min(self.seconds[n] for n in _DENSE) / self.seconds[self.best]

    @property
    def over_csr(self) -> float:
        """The same over the faster CSR library."""
        return min(self.seconds[n] for n in _CSR) / self.seconds[self.best]


def time_runs(
    folders: Sequence[Path], batches: Sequence[int] = BATCHES, *, rounds: int = ROUNDS,
    done: Callable[[int, str], None] = lambda number, name: None,
) -> list[TimedLayer]:  # fmt: skip
    """Times every masked linear layer of every run, on one thread.

    Args:
        folders: of runs.
        done: told how many layers were timed, and the last one's name.

    Raises:
        InputError: a folder that is no run's, or a run without masked linear layers.
    """
    from threadpoolctl import threadpool_limits

    for batch in batches:
        check_integer("batch", batch, 1)
    rng = np.random.default_rng(0)
    found: list[TimedLayer] = []
    number = 0
    with threadpool_limits(1), _one_torch_thread():
        for folder in folders:
            algorithm, layers = _layers(folder)
            for layer, (mask, weight) in layers.items():
                chances = rng.random(mask.shape)
                bound = np.partition(chances.ravel(), mask.nnz - 1)[mask.nnz - 1]
                values = rng.standard_normal(mask.shape).astype(np.float32)
                pairs = ((False, mask, weight), (True, Mask(chances <= bound), values))
                for batch in batches:
                    for drawn, one, own in pairs:
                        seconds, steady = _timed(one, own, batch, rng, rounds)
                        counts = one.array.sum(axis=1)
                        found.append(TimedLayer(
                            folder.name, algorithm, layer, mask.shape, one.nnz,
                            int((counts == 0).sum()), int(counts.max()), batch, drawn, seconds,
                            steady,
                        ))  # fmt: skip
                number += 1
                done(number, f"{folder.name} {layer}")
    return found


def count(folders: Sequence[Path]) -> int:
    """Layers that `time_runs` times."""
    return sum(len(_layers(folder)[1]) for folder in folders)


def _layers(folder: Path) -> tuple[str, dict[str, tuple[Mask, np.ndarray]]]:
    """The run's algorithm, and layer → its last mask and weights."""
    from sparse_train.record import TrainingRecord
    from sparse_train.runs.run_folder import read_weights

    record = TrainingRecord.load(folder)
    if not record.mask_versions:
        raise InputError(f"run folder {folder}: has no masks; allowed is a sparse run")
    masks, weights = record.masks(-1), read_weights(folder)
    found = {}
    for layer, mask in masks.items():
        weight = weights.get(f"{layer}.weight")
        if weight is not None and weight.shape == mask.shape and mask.nnz:
            found[layer] = (mask, np.ascontiguousarray(weight.float().numpy()))
    if not found:
        raise InputError(f"run folder {folder}: has no masked linear layer whose kernels are timed")
    return record.config.algorithm, found


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(
    mask: Mask, weight: np.ndarray, batch: int, rng: np.random.Generator, rounds: int
) -> tuple[dict[str, float], bool]:
    import torch

    from hwsim.measured.timing import compare

    x = rng.standard_normal((batch, mask.shape[1])).astype(np.float32)
    variants = _variants(mask, weight * mask.array, x)
    with torch.no_grad():
        compared = compare(variants, rounds=rounds, clock=time.thread_time)
    return {one.name: one.median_s for one in compared.timings}, compared.steady


def _variants(mask: Mask, weight: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    import warnings

    import torch

    from hwsim.kernels.cpu import LINEAR

    warnings.filterwarnings("ignore", message="Sparse CSR")
    dense, csr = LINEAR.get("dense")(mask, weight), LINEAR.get("csr")(mask, weight)
    w, tx = torch.from_numpy(weight), torch.from_numpy(x)
    tcsr, columns = w.to_sparse_csr(), torch.from_numpy(np.ascontiguousarray(x.T))
    variants: dict[str, Callable[[], Any]] = {
        "dense numpy": lambda: dense.forward(x),
        "dense torch": lambda: torch.mm(tx, w.T),
        "csr scipy": lambda: csr.forward(x),
        "csr torch": lambda: torch.mm(tcsr, columns),
    }
    names = ("gather", "lookup") if len(x) == 1 else ("tiled",)
    for name in names:
        if not LINEAR.get(name).unsuitable(mask):
            layer = LINEAR.get(name)(mask, weight)
            variants[name] = lambda layer=layer: layer.forward(x)
    return variants
