"""Loss and gradients of many small BERTs at once, written out.

The same numbers as `torch.func.vmap` of the model gives, up to rounding, in less than half the
time: under vmap most of it goes to attention over a few tokens, to LayerNorm and to the calls
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_train.models.bert import Bert
from sparse_train.population import bert_passes as passes
from sparse_train.tasks import Prepared

_AT_ONCE = 32  # networks; more of them only need more memory
Views = Mapping[str, Tensor]


def fits(model: nn.Module, task: Prepared) -> bool:
    """Whether this is a BERT that learns hidden tokens, which is written out here."""
    if type(model) is not Bert:
        return False
    from sparse_train.tasks.mlm import PreparedText

    return type(task) is PreparedText and all(p.dtype == torch.float32 for p in model.parameters())


def differentiate(
    model: Bert, views: Views, batch: Mapping[str, Tensor], names: tuple[str, ...]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradients by parameter (n, *shape), losses (n,), and what layers `names` put out.

    Args:
        views: parameter name, with the prefix "model.", → (n, *shape).
        batch: tensors (n, batch, …).
        names: of linear layers; their outputs' mean and variance come as (n, names, 2).
    """
    n = len(batch["labels"])
    gradients = {name: torch.zeros_like(value) for name, value in views.items()}
    losses, seen = torch.empty(n), torch.empty(n, len(names), 2)
    for first in range(0, n, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        own = _Pass(model, {name: value[part] for name, value in views.items()}, names)
        losses[part] = own.forward({k: v[part] for k, v in batch.items()})[0]
        if names:
            seen[part] = torch.stack([own.seen[name] for name in names], 1)
        own.backward({name: value[part] for name, value in gradients.items()})
    return gradients, losses, seen


def measure(model: Bert, views: Views, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss, and share of hidden tokens guessed right, of each network on one batch, (n,)."""
    n = len(next(iter(views.values())))
    found: dict[str, Tensor] = {"loss": torch.empty(n), "accuracy": torch.empty(n)}
    for first in range(0, n, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        own = {name: value[part] for name, value in views.items()}
        size = len(next(iter(own.values())))
        shared = {k: v.expand(size, *v.shape) for k, v in batch.items()}
        loss, logits = _Pass(model, own, ()).forward(shared)
        right = logits.argmax(-1) == shared["labels"].flatten(1)
        found["loss"][part], found["accuracy"][part] = loss, right.float().mean(1)
    return found


class _Pass:
    """One forward pass of n networks, and the way back."""

    def __init__(self, model: Bert, views: Views, names: tuple[str, ...]) -> None:
        self.model, self.views, self.names = model, views, names
        self.seen: dict[str, Tensor] = {}
        self._kept: dict[str, Any] = {}

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Losses (n,), and log-probabilities (n, hidden tokens, vocabulary)."""
        ids = batch["input_ids"]
        n, windows, tokens = ids.shape
        self.shape = (n, windows, tokens)
        table = self._of("tokens.weight")
        vocabulary, width = table.shape[1:]
        self.rows = (ids.reshape(n, -1) + vocabulary * torch.arange(n)[:, None]).flatten()
        x = table.reshape(-1, width)[self.rows].view(n, windows, tokens, width)
        x = (x + self._of("positions.weight")[:, None, :tokens]).view(n, -1, width)
        x = self._norm("embedding_norm", x)
        for i in range(len(self.model.encoder)):
            x = self._layer(f"encoder.{i}", x)
        x = self._norm("norm", x)
        place = batch["positions"] + tokens * torch.arange(windows)[:, None]
        self.places = (place.flatten(1) + windows * tokens * torch.arange(n)[:, None]).flatten()
        x = x.reshape(-1, width)[self.places].view(n, -1, width)
        x = self._norm("transform_norm", self._gelu("transform", self._linear("transform", x)))
        logits = self._linear("decoder", x, self._decoder())
        self.log_shares = torch.log_softmax(logits, -1)
        self.labels = batch["labels"].reshape(n, -1, 1)
        counted = self.labels != -100
        self.weight = counted.float() / counted.sum(1, keepdim=True)
        self.labels = self.labels.clamp(min=0)
        right = self.log_shares.gather(-1, self.labels)
        return -(right * self.weight).sum((1, 2)), self.log_shares

    def backward(self, gradients: dict[str, Tensor]) -> None:
        """Fills `gradients`, parameter name → (n, *shape), which are zero before."""
        self._gradients = gradients
        n, windows, tokens = self.shape
        g = self.log_shares.exp_()
        g.scatter_add_(-1, self.labels, torch.full((1, 1, 1), -1.0).expand_as(self.labels))
        g *= self.weight
        g = self._linear_back("decoder", g, self._decoder())
        g = self._norm_back("transform_norm", g)
        g = self._linear_back("transform", self._gelu_back("transform", g))
        width = g.shape[-1]
        whole = torch.zeros(n * windows * tokens, width)
        g = whole.index_add_(0, self.places, g.reshape(-1, width)).view(n, -1, width)
        g = self._norm_back("norm", g)
        for i in reversed(range(len(self.model.encoder))):
            g = self._layer_back(f"encoder.{i}", g)
        g = self._norm_back("embedding_norm", g)
        self._of("positions.weight", gradients)[:, :tokens] = g.view(n, -1, tokens, width).sum(1)
        table = self._of("tokens.weight", gradients)
        summed = torch.zeros(n * table.shape[1], width)
        table += summed.index_add_(0, self.rows, g.reshape(-1, width)).view(table.shape)

    def _decoder(self) -> str:
        """Where the output layer's weight lies: with the embedding, if they are one."""
        return "decoder.weight" if "model.decoder.weight" in self.views else "tokens.weight"

    def _of(self, name: str, among: Views | None = None) -> Tensor:
        return (self.views if among is None else among)[f"model.{name}"]

    def _layer(self, name: str, x: Tensor) -> Tensor:
        a = self._norm(f"{name}.attention_norm", x)
        q, k, v = (self._linear(f"{name}.attention.{p}", a) for p in ("query", "key", "value"))
        x = x + self._linear(f"{name}.attention.output", self._attention(name, q, k, v))
        up = self._linear(f"{name}.up", self._norm(f"{name}.ffn_norm", x))
        return x + self._linear(f"{name}.down", self._gelu(f"{name}.up", up))

    def _layer_back(self, name: str, g: Tensor) -> Tensor:
        up = self._gelu_back(f"{name}.up", self._linear_back(f"{name}.down", g))
        g = g + self._norm_back(f"{name}.ffn_norm", self._linear_back(f"{name}.up", up))
        o = self._linear_back(f"{name}.attention.output", g)
        parts = zip(("query", "key", "value"), self._attention_back(name, o), strict=True)
        a = sum(self._linear_back(f"{name}.attention.{p}", own) for p, own in parts)
        assert isinstance(a, Tensor)
        return g + self._norm_back(f"{name}.attention_norm", a)

    def _linear(self, name: str, x: Tensor, weight: str = "") -> Tensor:
        w = self._of(weight or f"{name}.weight")
        self._kept[name] = x
        y = torch.baddbmm(self._of(f"{name}.bias")[:, None], x, w.transpose(1, 2))
        if name in self.names:
            values = y.flatten(1)
            self.seen[name] = torch.stack([values.mean(1), values.var(1, correction=0)], 1)
        return y

    def _linear_back(self, name: str, g: Tensor, weight: str = "") -> Tensor:
        weight = weight or f"{name}.weight"
        own = self._of(weight, self._gradients)
        own += torch.bmm(g.transpose(1, 2), self._kept[name])
        self._of(f"{name}.bias", self._gradients).copy_(g.sum(1))
        return torch.bmm(g, self._of(weight))

    def _gelu(self, name: str, x: Tensor) -> Tensor:
        self._kept[f"{name} gelu"] = x
        return F.gelu(x)

    def _gelu_back(self, name: str, g: Tensor) -> Tensor:
        return torch.ops.aten.gelu_backward(g, self._kept[f"{name} gelu"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        w, b = (self._of(f"{name}.{p}").contiguous() for p in ("weight", "bias"))
        x = x.contiguous()
        y, centred, inverse = torch.empty_like(x), torch.empty_like(x), torch.empty(x.shape[:2])
        layer = self.model.get_submodule(name)
        assert isinstance(layer, nn.LayerNorm)
        passes.norm(
            x.numpy(), w.numpy(), b.numpy(), layer.eps, y.numpy(), centred.numpy(), inverse.numpy()
        )
        self._kept[name] = centred, inverse, w
        return y

    def _norm_back(self, name: str, g: Tensor) -> Tensor:
        centred, inverse, w = self._kept[name]
        gx, gw, gb = torch.empty_like(centred), torch.zeros(w.shape), torch.zeros(w.shape)
        passes.norm_back(
            g.contiguous().numpy(), centred.numpy(), inverse.numpy(), w.numpy(),
            gx.numpy(), gw.numpy(), gb.numpy(),
        )  # fmt: skip
        self._of(f"{name}.weight", self._gradients).copy_(gw)
        self._of(f"{name}.bias", self._gradients).copy_(gb)
        return gx

    def _kernels(self, width: int) -> tuple[Any, Any]:
        heads = self.model.config.heads
        return passes.attention(self.shape[2], heads, width // heads)

    def _attention(self, name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, windows, tokens = self.shape
        heads, width = self.model.config.heads, q.shape[-1]
        q, k, v = (t.view(n, windows, tokens, width) for t in (q, k, v))
        out, shares = torch.empty_like(q), torch.empty(n, windows, heads, tokens, tokens)
        self._kernels(width)[0](*(t.numpy() for t in (q, k, v, out, shares)))
        self._kept[f"{name} attention"] = q, k, v, shares
        return out.view(n, -1, width)

    def _attention_back(self, name: str, g: Tensor) -> tuple[Tensor, ...]:
        q, k, v, shares = self._kept[f"{name} attention"]
        made = tuple(torch.empty_like(q) for _ in range(3))
        own = (g.contiguous().view(q.shape), q, k, v, shares, *made)
        self._kernels(q.shape[-1])[1](*(t.numpy() for t in own))
        return tuple(t.view(g.shape) for t in made)
