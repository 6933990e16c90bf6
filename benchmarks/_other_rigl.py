"""RigL updates of other libraries on the layers of `bench_mask_update`, each in its own process.

    python benchmarks/_other_rigl.py rigl_torch|sparsimony FOLDER ROUNDS THREADS

FOLDER is where pip put the library. Prints the fastest update: seconds by the clock on the wall and
of processor time.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.bench_mask_update import DROP, LAYERS, Block, seconds


def rigl_torch(model: nn.Module) -> Callable[[], None]:
    # It asks torchvision for the names of two classes only, which none of these layers is.
    resnet = types.ModuleType("resnet")
    resnet.Bottleneck = resnet.BasicBlock = type("Unused", (), {})
    vision, models = types.ModuleType("torchvision"), types.ModuleType("models")
    vision.models, models.resnet = models, resnet
    sys.modules["torchvision"] = vision
    from rigl_torch.RigL import RigLScheduler

    # Its uniform distribution keeps the first layer dense: one that does not count is put there.
    model = nn.Sequential(nn.Linear(1, 1), *model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    scheduler = RigLScheduler(
        model, optimizer, dense_allocation=0.1, T_end=10**9, delta=2, alpha=DROP,
        ignore_linear_layers=False,
    )  # fmt: skip
    hooks = [hook for hook in scheduler.backward_hook_objects if hook is not None]
    sets = gradients([scheduler.W[hook.layer] for hook in hooks])

    def one() -> None:
        for hook, gradient in zip(hooks, next(sets), strict=True):
            hook.dense_grad = gradient
            scheduler.W[hook.layer].grad = gradient.clone()
        scheduler._rigl_step()

    return one


def sparsimony(model: nn.Module) -> Callable[[], None]:
    from sparsimony.distributions.base import UniformDistribution
    from sparsimony.dst.rigl import RigL
    from sparsimony.schedulers.base import ConstantScheduler

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    sparsifier = RigL(
        ConstantScheduler(DROP, 10**9, 1), UniformDistribution(), optimizer, sparsity=0.9,
        init_method=None,
    )  # fmt: skip
    sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight"} for name in names])
    places = [model.get_submodule(name).parametrizations.weight for name in names]
    sets = gradients([place.original for place in places])

    def one() -> None:
        for place, gradient in zip(places, next(sets), strict=True):
            place[0].dense_grad = gradient
        assert sparsifier.step()

    return one


def gradients(weights: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Two sets in turn, so that every update changes every mask."""
    sets = [[torch.randn_like(weight) for weight in weights] for _ in range(2)]
    while True:
        yield from sets


def main() -> None:
    name, folder, rounds, threads = sys.argv[1:]
    sys.path.insert(0, folder)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(LAYERS)))
    one = {"rigl_torch": rigl_torch, "sparsimony": sparsimony}[name](model)
    print(*seconds(one, int(rounds)))


if __name__ == "__main__":
    main()
