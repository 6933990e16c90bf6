"""The Workload of a measured step: its model is built without weights and observed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.steps.record import Step
from hwsim.errors import InputError, unknown
from hwsim.kernels.gpu.suite.steps import encoder
from hwsim.mask import Mask
from hwsim.measured.gpu_suite import GpuCase
from hwsim.workload import Workload
from sparse_train.weightless import weightless
from sparse_train.workload import workload

PATTERNS = ("dense", "2:4", "transposable 2:4")
# Sizes of a weight that cuSPARSELt and CUTLASS both take, in 16 bit.
TAKEN = 32
_ONE_WAY = np.tile(np.array([True, True, False, False]), (4, 1))
_BOTH_WAYS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)


def workload_of(step: Step) -> Workload:
    """What a measured step computes.

    Raises:
        InputError: a model that is not known, or a package that it needs and that is missing.
    """
    model, batch, loss = built(step)
    if step.layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
        batch = batch.to(memory_format=torch.channels_last) if isinstance(batch, Tensor) else batch
    dtype = None if step.precision == "float32" else step.precision
    optimizer = step.optimizer if step.mode == "training" else None
    train = step.mode != "forward"
    with _attention(step.attention == "fused"):
        made = workload(model, batch, None, optimizer, loss, dtype, train, compiled=step.compiled)
    return made.with_masks(masks_of(step.pattern, made)) if step.pattern != "dense" else made


def built(step: Step) -> tuple[nn.Module, Any, Callable | None]:
    """Model, batch and loss of a step, on "meta" where the model lets itself be built there."""
    kind, _, name = step.model.partition(":")
    if kind not in BUILDERS:
        raise InputError(unknown("model", step.model, tuple(BUILDERS)))
    try:
        return BUILDERS[kind](step, name)
    except ImportError as error:
        raise InputError(
            f"model {step.model!r} needs the package {error.name}; install it to price this step"
        ) from None


def masks_of(pattern: str, made: Workload) -> dict[str, Mask]:
    """The masks that a measured step's linear layers have: all whose sizes kernels of 2:4 take.

    Raises:
        InputError: a pattern that measured steps do not have.
    """
    if pattern not in PATTERNS:
        raise InputError(unknown("pattern", pattern, PATTERNS))
    tile = _BOTH_WAYS if pattern.startswith("transposable") else _ONE_WAY
    linear = {op.name for op in made if op.kind == "gemm" and op.weight_shape}
    return {
        name: Mask(np.tile(tile, (n // 4, k // 4)), copy=False)
        for name, (n, k) in made.layers.items()
        if name in linear and n % TAKEN == 0 and k % TAKEN == 0
    }


@contextlib.contextmanager
def _attention(fused: bool) -> Iterator[None]:
    """Plain attention is products and a softmax, also where a model asks for the fused kernel."""
    if fused:
        yield
        return
    kept = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _plain_attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = kept


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-2, -1)
    if is_causal:
        scores = scores + torch.zeros(scores.shape[-2:], device=scores.device, dtype=scores.dtype)
    scores = scores if attn_mask is None else scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


def _timm(step: Step, name: str) -> tuple[nn.Module, Any, Callable | None]:
    torchvision_without_kernels()
    timm = importlib.import_module("timm")
    layers = importlib.import_module("timm.layers")
    fused = step.attention == "fused"
    layers.set_fused_attn(fused)
    # Assumed: timm's later tables are made with its fast norms, in 16 bit; in float32 the
    # bytes alone would take longer than was measured. The older ones are not.
    layers.set_fast_norm(fused)
    side = step.image or 224
    options: dict[str, Any] = dict(step.arguments)
    shape = (step.batch, 3, side, side)
    trial = None
    for more in ({"img_size": side}, {}):
        for where in ("meta", "cpu"):
            try:
                with torch.device(where):
                    model = timm.create_model(name, **options, **more)
                    return model, torch.empty(shape, device=where), None
            except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
                trial = error
    raise InputError(f"model {step.model!r}: cannot be built ({trial})")


def _transformers() -> Any:
    torchvision_without_kernels()
    return importlib.import_module("transformers")


def torchvision_without_kernels() -> None:
    """torchvision's wheel may be of another torch than the one installed: no operator is run."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        _KEPT.append(library)
        for name in ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
            with contextlib.suppress(RuntimeError):
                library.define(f"{name}(Tensor x) -> Tensor")


_KEPT: list[Any] = []


def _masked_by_choice(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Plain attention as causal models of 2023 had it: scores are chosen or put away by a mask,
    which no compiler of that time took for fused attention."""
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if attention_mask is not None:
        scores = torch.where(attention_mask == 0, scores, attention_mask)
    scores = F.dropout(scores.softmax(-1), dropout, module.training)
    return (scores @ value).transpose(1, 2), scores


def _hugging_face(
    configuration: str, architecture: str, names: dict[str, str], causal: bool = False, **more: Any
):
    """A builder of a language model of the transformers package."""

    def build(step: Step, _: str) -> tuple[nn.Module, Any, Callable | None]:
        transformers = _transformers()
        given = {names.get(k, k): v for k, v in step.arguments.items()}
        given = {k: v for k, v in given.items() if k}
        how = "sdpa" if step.attention == "fused" else "eager"
        if causal and how == "eager":
            how = "masked_by_choice"
            transformers.AttentionInterface.register(how, _masked_by_choice)
            masks = transformers.AttentionMaskInterface
            masks.register(how, masks._global_mapping["eager"])
        config = getattr(transformers, configuration)(
            **{**more, **given}, attn_implementation=how, use_cache=False
        )
        with weightless():
            model = getattr(transformers, architecture)(config)
        model.eval()
        ids = torch.zeros((step.batch, step.sequence), dtype=torch.long)
        batch = {"input_ids": ids}
        if step.mode != "forward":
            batch["labels"] = ids
        return model, batch, None

    return build


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout, is_causal=True)
        x = x + self._dropped(self.out(y.transpose(1, 2).reshape(batch, length, width)))
        return x + self._dropped(self.down(F.gelu(self.up(self.norm_2(x)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout else x


class _Decoder(nn.Module):
    """Learned positions, no biases, tied output layer, causal attention.

    Source: MosaicML's MPT as llm-foundry's benchmarks configure it, without dropout; with dropout
    of attention and of what a block adds, Korthikanti et al. 2022, section 4.
    """

    def __init__(
        self, width: int, layers: int, heads: int, vocab: int, length: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        scores = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(scores.view(-1, scores.shape[-1]).float(), ids.view(-1))


def _decoder(step: Step, _: str) -> tuple[nn.Module, Any, Callable | None]:
    sizes = step.arguments
    with weightless():
        model = _Decoder(
            sizes["hidden"], sizes["layers"], sizes["heads"], sizes["vocab"], step.sequence,
            sizes.get("dropout", 0.0),
        )  # fmt: skip
    return model, torch.zeros((step.batch, step.sequence), dtype=torch.long), None


def _transformer_layer(step: Step, name: str) -> tuple[nn.Module, Any, Callable | None]:
    """One layer of a model of the transformers package, in training mode."""
    transformers = _transformers()
    names = {"bert_large": ("BertConfig", "models.bert.modeling_bert", "BertLayer",
                            {"hidden_size": 1024, "num_attention_heads": 16,
                             "intermediate_size": 4096}),
             "gpt2_medium": ("GPT2Config", "models.gpt2.modeling_gpt2", "GPT2Block",
                             {"n_embd": 1024, "n_head": 16})}  # fmt: skip
    if name not in names:
        raise InputError(unknown("layer", name, tuple(names)))
    configuration, module, layer, sizes = names[name]
    config = getattr(transformers, configuration)(**sizes, attn_implementation="eager")
    with weightless():
        block = getattr(importlib.import_module(f"transformers.{module}"), layer)(config)
    x = torch.empty((step.batch, step.sequence, 1024), device="meta")
    if step.mode != "forward":
        x.requires_grad_()
    return block, x, lambda y: (y[0] if isinstance(y, tuple) else y).sum()


def _encoder(step: Step, name: str) -> tuple[nn.Module, Any, Callable | None]:
    """The blocks that `nettime measure gpu` times: `batch` rows of a width."""
    width, layers = step.arguments["width"], step.arguments["layers"]
    case = GpuCase(f"{name} dense", "step", step.batch, width, layers, step.precision)
    x = torch.empty((step.batch, width), device="meta")
    return encoder(case, "meta"), x, lambda y: y.float().square().mean()


_BERT = {"hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
         "ffn": "intermediate_size", "vocab": "vocab_size"}  # fmt: skip
_GPT2 = {"hidden": "n_embd", "layers": "n_layer", "heads": "n_head", "ffn": "n_inner",
         "vocab": "vocab_size"}  # fmt: skip
_OPT = {**_BERT, "ffn": "ffn_dim"}
BUILDERS: dict[str, Callable[[Step, str], tuple[nn.Module, Any, Callable | None]]] = {
    "timm": _timm,
    "bert": _hugging_face("BertConfig", "BertLMHeadModel", _BERT, is_decoder=True),
    "bert_encoder": _hugging_face("BertConfig", "BertModel", _BERT),
    "bert_squad": _hugging_face("BertConfig", "BertForQuestionAnswering", _BERT),
    "gpt2": _hugging_face("GPT2Config", "GPT2LMHeadModel", _GPT2, causal=True, n_positions=4096),
    "opt": _hugging_face(
        "OPTConfig", "OPTForCausalLM", _OPT, causal=True, max_position_embeddings=4096
    ),
    "decoder": _decoder,
    "encoder": _encoder,
    "layer": _transformer_layer,
}
