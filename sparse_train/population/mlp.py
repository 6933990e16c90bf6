"""Loss and gradients of many small perceptrons on images at once, written out.

The same numbers as `torch.func.vmap` of the model gives, up to rounding, in a fraction of the
time: networks this small spend nearly all of it in the calls of vmap themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_train.classifier import ImageClassifier
from sparse_train.models.mlp import Mlp
from sparse_train.tasks import Prepared

Views = Mapping[str, Tensor]


def fits(model: nn.Module, task: Prepared) -> bool:
    """Whether this is a perceptron that classifies images, which is written out here."""
    if type(model) is not ImageClassifier or type(model.network) is not nn.Sequential:
        return False
    from sparse_train.tasks.images import PreparedImages

    parts = [type(part) for part in model.network]
    biased = all(m.bias is not None for m in model.modules() if isinstance(m, nn.Linear))
    return (
        parts == [nn.Flatten, Mlp] and biased and type(task) is PreparedImages
        and all(p.dtype == torch.float32 for p in model.parameters())
    )  # fmt: skip


def differentiate(
    model: nn.Module, views: Views, batch: Mapping[str, Tensor], names: tuple[str, ...]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradients by parameter (n, *shape), losses (n,), and what layers `names` put out.

    Args:
        views: parameter name, with the prefix "model.", → (n, *shape).
        batch: images (n, batch, channels, height, width), labels (n, batch).
        names: of linear layers; their outputs' mean and variance come as (n, names, 2).
    """
    linear = _linear(model)
    kept = _forward(linear, views, batch["images"].flatten(2))
    logits, labels = kept[-1], batch["labels"]
    n, examples, classes = logits.shape
    log_p = logits.log_softmax(-1)
    losses = -log_p.gather(-1, labels[..., None])[..., 0].mean(1)
    back = log_p.exp() - F.one_hot(labels, classes).to(logits.dtype)
    back /= examples
    gradients: dict[str, Tensor] = {}
    for i in range(len(linear) - 1, -1, -1):
        given = kept[i].relu() if i else kept[0]
        gradients[f"model.{linear[i]}.weight"] = torch.bmm(back.mT, given)
        gradients[f"model.{linear[i]}.bias"] = back.sum(1)
        if i:
            back = torch.bmm(back, views[f"model.{linear[i]}.weight"]) * (kept[i] > 0)
    seen = torch.empty(n, len(names), 2)
    for place, name in enumerate(names):
        put_out = kept[linear.index(name) + 1].flatten(1)
        seen[:, place, 0], seen[:, place, 1] = put_out.mean(1), put_out.var(1, correction=0)
    return gradients, losses, seen


def measure(model: nn.Module, views: Views, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss, and share of images classified right, of each network on one batch, (n,)."""
    images, labels = batch["images"].flatten(1), batch["labels"]
    size = len(next(iter(views.values())))
    logits = _forward(_linear(model), views, images.expand(size, *images.shape))[-1]
    n, classes = logits.shape[0], logits.shape[-1]
    wanted = labels.expand(n, -1)
    loss = F.cross_entropy(
        logits.reshape(-1, classes), wanted.reshape(-1), reduction="none"
    ).reshape(n, -1)
    return {"loss": loss.mean(1), "accuracy": (logits.argmax(-1) == wanted).double().mean(1)}


def _linear(model: nn.Module) -> list[str]:
    """Names of the linear layers, first to last."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _forward(linear: list[str], views: Views, inputs: Tensor) -> list[Tensor]:
    """Inputs (n, batch, pixels), and what each linear layer puts out, before ReLU."""
    kept = [inputs]
    for i, name in enumerate(linear):
        given = kept[-1].relu() if i else inputs
        weight, bias = views[f"model.{name}.weight"], views[f"model.{name}.bias"]
        kept.append(torch.baddbmm(bias[:, None], given, weight.mT))
    return kept
