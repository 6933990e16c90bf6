"""A task of your own: what is learnt, on which data, by which model.

python examples/own_task.py
nettime train --task examples/own_task.py:Sums --algorithm rigl --density 0.2 --run runs/sums
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import mse_loss

from sparse_train.tasks import Batch, Prepared, Task, stream


class Net(nn.Module):
    """Batches come as keyword arguments; `loss` below takes what it answers."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x, y):
        return mse_loss(self.body(x)[:, 0], y)


class PreparedSums(Prepared):
    """Numbers drawn anew in each step; those of validation and test are drawn once."""

    def __init__(self, settings: "Sums"):
        self.settings = settings

    @property
    def digest(self) -> str:  # of all that decides the batches
        return f"sums of 16, noise {self.settings.noise}"

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        return Net({"tiny": 16, "small": 64}[preset])

    def drawn(self, n: int, *key: int) -> Batch:
        rng = stream(*key)  # chance depends on the key alone
        x = rng.normal(size=(n, 16))
        y = abs(x).sum(axis=1) / 16 + self.settings.noise * rng.normal(size=n)
        return {"x": torch.tensor(x).float(), "y": torch.tensor(y).float()}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return self.drawn(batch_size, 0, seed, step)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(**batch)

    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        with torch.no_grad():  # not in use here: dropout; else also model.eval() and back
            held = self.drawn(256, {"validation": 1, "test": 2}[split])
            return {"loss": float(model(**held))}

    def describe(self) -> dict[str, Any]:
        return {"digest": self.digest}


@dataclass(frozen=True)
class Sums(Task):
    """Learn the mean of sixteen absolute values; its fields are the task's options."""

    default_model: ClassVar[str] = "mlp"  # what a user may name is up to `build_model`
    default_preset: ClassVar[str] = "small"
    noise: float = 0.1

    def prepare(self) -> PreparedSums:
        return PreparedSums(self)


def main() -> None:
    task = Sums().prepare()
    model = task.build_model("mlp", "small", {})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    before = task.evaluate(model)["loss"]
    for step in range(1, 101):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, 32, seed=0)).backward()
        optimizer.step()
    print(f"validation loss {before:.3f} -> {task.evaluate(model)['loss']:.3f}")


if __name__ == "__main__":
    main()
