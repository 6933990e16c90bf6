"""Models that people have by name: `hf:NAME`, `timm:NAME`, `torchvision:NAME`.

They are built without weights by the package that defines them, from sizes that are ours
(`hugging_face.toml`), that package's own, or the user's local files. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import importlib
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import nn

SOURCES = ("hf", "timm", "torchvision")
_SIZES = Path(__file__).with_name("hugging_face.toml")
# Settings of transformers' classes that grow with the width, under every name they go by.
_WIDTHS = (
    "hidden_size", "intermediate_size", "ffn_dim", "word_embed_proj_dim", "embedding_size",
    "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner",
)  # fmt: skip
_HEADS = (
    "num_attention_heads", "num_key_value_heads", "encoder_attention_heads",
    "decoder_attention_heads",
)  # fmt: skip
Built = tuple["nn.Module", Any]


def is_public(name: str) -> bool:
    """Whether a model is asked for as another package has it."""
    return name.partition(":")[0] in SOURCES and ":" in name


def public_model(
    name: str, batch_size: int, sequence_length: int
) -> tuple[Callable[[int], Built], int]:
    """A function width → (model, batch) on the "meta" device, and the model's own width.

    The width counts what the model can be narrowed by, its heads; 0 where it cannot.

    Args:
        name: like "hf:gpt2", "hf:meta-llama/Llama-2-7b-hf", "timm:resnet50".
        batch_size, sequence_length: images have the size that the model is made for.

    Raises:
        InputError: no such model, or a package that is missing.
    """
    source, _, rest = name.partition(":")
    from analysis.steps.models import torchvision_without_kernels

    try:
        torchvision_without_kernels()
        if source == "hf":
            return _hugging_face(name, rest, batch_size, sequence_length)
        importlib.import_module("torchvision.models" if source == "torchvision" else source)
        build = _timm if source == "timm" else _torchvision
        return lambda width: build(name, rest, batch_size), 0
    except ImportError as error:
        packages = {"hf": "'nettime[hf]'", "timm": "'nettime[frameworks]'"}
        raise InputError(
            f"model {name!r}: needs the package {error.name or source}; install it with "
            f"`pip install {packages.get(source, source)}`"
        ) from None


def code_of(name: str) -> str | None:
    """The package and version that a model follows from; None where local files have it."""
    import importlib.metadata

    source, _, rest = name.partition(":")
    if source == "hf" and not _full_names(rest):
        return None
    package = "transformers" if source == "hf" else source
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _full_names(rest: str) -> list[str]:
    asked = rest.lower()
    return [full for full in known() if asked in (full.lower(), full.split("/")[1].lower())]


@cache
def known() -> dict[str, dict[str, Any]]:
    """Full names on the Hugging Face Hub → class, task and sizes, of those that we know."""
    return tomllib.loads(_SIZES.read_text(encoding="utf-8"))


def _hugging_face(
    name: str, rest: str, batch_size: int, length: int
) -> tuple[Callable[[int], Built], int]:
    transformers = importlib.import_module("transformers")
    found = _full_names(rest)
    if found:
        content = dict(known()[found[0]])
        kind, task = content.pop("kind"), content.pop("task")
        config = getattr(transformers, f"{kind}Config")(**content)
    else:
        config, task = _local(transformers, name, rest)
    heads = _own(config, "num_attention_heads") or 0
    groups = _own(config, "num_key_value_heads") or heads
    units = groups if groups > 1 else heads  # one group of keys serves any number of heads
    narrows = units > 1 and (_own(config, "hidden_size") or 0) % units == 0

    def build(width: int) -> Built:
        narrowed = copy.deepcopy(config)
        if narrows and width < units:
            _narrow(narrowed, config, width / units)
        return _made(transformers, narrowed, task, batch_size, length)

    return build, units if narrows else 0


def _local(transformers: Any, name: str, rest: str) -> tuple[Any, str]:
    """A configuration of the user's local files: a folder, or what was downloaded before."""
    try:
        config = transformers.AutoConfig.from_pretrained(rest, local_files_only=True)
    except Exception:
        names = tuple(full.split("/")[1] for full in known())
        raise InputError(
            f"{unknown('model', rest, names)}; or one of your local files: a folder with "
            f"config.json, or a model that was downloaded before ({name} is not; nothing is "
            "downloaded)"
        ) from None
    named = next(iter(getattr(config, "architectures", None) or ["CausalLM"]))
    tasks = ("MaskedLM", "Seq2SeqLM", "ImageClassification", "SequenceClassification", "CausalLM")
    if named.endswith("ForConditionalGeneration"):
        return config, "Seq2SeqLM"
    return config, next((task for task in tasks if named.endswith(task)), "CausalLM")


def _own(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _narrow(narrowed: Any, config: Any, share: float) -> None:
    """Heads keep their size; all other widths shrink with their number."""
    heads = _own(config, "num_attention_heads") or 1
    size = (_own(config, "hidden_size") or 0) // heads
    kept = max(round(heads * share), 1)
    for name in _HEADS:
        value = _own(config, name)
        if value is not None:
            setattr(narrowed, name, max(round(value * share), 1))
    for name in _WIDTHS:
        value = _own(config, name)
        if value is not None:
            setattr(narrowed, name, max(round(value * share), 1))
    narrowed.hidden_size = kept * size
    if _own(config, "word_embed_proj_dim"):
        narrowed.word_embed_proj_dim = kept * size


def _made(transformers: Any, config: Any, task: str, batch_size: int, length: int) -> Built:
    import torch

    from sparse_train.weightless import weightless

    config.use_cache = False
    auto = getattr(transformers, f"AutoModelFor{task}")
    with weightless():
        model = auto.from_config(config, attn_implementation="sdpa")
    if task == "ImageClassification":
        side = config.image_size
        images = torch.empty((batch_size, config.num_channels, side, side), device="meta")
        labels = torch.zeros(batch_size, dtype=torch.long, device="meta")
        return model, {"pixel_values": images, "labels": labels}
    longest = _own(config, "max_position_embeddings") or length
    if length > longest:
        raise InputError(
            f"--sequence-length: value is {length}; this model has positions for {longest} tokens"
        )
    ids = torch.zeros((batch_size, length), dtype=torch.long, device="meta")
    labels = torch.zeros(batch_size, dtype=torch.long, device="meta")
    return model, {
        "input_ids": ids,
        "labels": labels if task == "SequenceClassification" else ids,
    }


def _timm(name: str, rest: str, batch_size: int) -> Built:
    import torch

    timm = importlib.import_module("timm")
    if not timm.is_model(rest):
        close = timm.list_models(f"*{rest}*")[:8] or timm.list_models("resnet*")[:8]
        raise InputError(f"{unknown('model', name, [f'timm:{one}' for one in close])}, and others")
    try:
        with torch.device("meta"):
            model = timm.create_model(rest)
    except (RuntimeError, NotImplementedError):  # Some look at their own weights while being built.
        model = timm.create_model(rest)
    shape = model.default_cfg.get("input_size", (3, 224, 224))
    return model, torch.empty((batch_size, *shape), device=next(model.parameters()).device)


def _torchvision(name: str, rest: str, batch_size: int) -> Built:
    import torch

    models = importlib.import_module("torchvision.models")
    if rest not in models.list_models():
        raise InputError(unknown("model", name, [f"torchvision:{m}" for m in models.list_models()]))
    options = {"weights": None}
    if "detection" in str(models.get_model_builder(rest).__module__):
        raise InputError(f"model {name!r}: detection models take lists of images; use --model")
    with torch.device("meta"):
        model = models.get_model(rest, **options)
    side = 299 if rest.startswith("inception") else 224
    video = "video" in str(models.get_model_builder(rest).__module__)
    shape = (batch_size, 3, 16, 112, 112) if video else (batch_size, 3, side, side)
    return model, torch.empty(shape, device="meta")
