"""What is estimated: a model and a batch, by name or from a function of the user's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.estimating import public_models
from analysis.estimating.kept import kept, made_anew
from hwsim import InputError, Mask, Workload
from hwsim.references import load

if TYPE_CHECKING:
    from sparse_train.runs.config import TrainConfig


@dataclass(frozen=True)
class Subject:
    """A dense training step, and which of its weights masks can act on.

    Attributes:
        name: for titles.
        step: one dense training step.
        shapes: layer → (out, in, kernel…) of its weight, of every maskable layer.
        weights: parameters of the whole model.
        note: what is to be known of its masks; "" for most.
        narrowed: FLOPs of a step → (label, step) of a narrower dense model that costs as much;
            None where there is no way to narrow it.
        no_width: why there is none.
        priced: batch, optimizer and operand type, for people; "" where they are the caller's.
        masks: layer → mask that the model came with, in place of random ones.
    """

    name: str
    step: Workload
    shapes: dict[str, tuple[int, ...]]
    weights: int
    narrowed: Callable[[int], tuple[str, Workload]] | None = None
    note: str = ""
    no_width: str = "its masks save no time"
    priced: str = ""
    masks: Mapping[str, Mask] = field(default_factory=dict)


# Weights from which masks of equal layers are drawn once: more would fit no laptop.
SHARED_FROM = 1 << 31
# Shares of the width that a model of the user's is asked for.
USER_WIDTHS = 64
# Operand types by the names people use; None leaves a model in the types that it is made of.
DTYPES = {
    "float32": "float32", "fp32": "float32", "tfloat32": "tfloat32", "tf32": "tfloat32",
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16",
    "amp-bf16": "amp-bf16", "amp-fp16": "amp-fp16",
}  # fmt: skip


def named(
    name: str, batch_size: int, sequence_length: int, dtype: str | None = None,
    optimizer: str = "adamw",
) -> Subject:  # fmt: skip
    """A model by name: one of sparse_train's, or `hf:…`, `timm:…`, `torchvision:…`.

    Steps are kept on disk (`analysis.estimating.kept`) where they follow from installed code alone.

    Args:
        dtype: an operand type of DTYPES' values.
        optimizer: a name of `sparse_train.workload.OPTIMIZERS`.
    """
    code = _code_of(name)
    keep = made_anew if code is None else kept
    asked = {
        "model": name, "batch": batch_size, "length": sequence_length, "dtype": dtype,
        "optimizer": optimizer, "code": code,
    }  # fmt: skip
    build = cache(lambda: _builder(name, batch_size, sequence_length))

    def traced() -> dict[str, Any]:
        make, widths = build()
        made = of(name, *make(widths), dtype, optimizer=optimizer)
        return {
            "step": made.step, "shapes": list(made.shapes.items()), "weights": made.weights,
            "note": made.note, "widths": widths,
        }  # fmt: skip

    found = keep(asked, traced)
    step, widths = found["step"], found["widths"]
    shapes = {layer: tuple(shape) for layer, shape in found["shapes"]}
    images = any(op.kind == "conv" for op in step)
    batch = f"{batch_size} samples" if images else f"{batch_size} × {sequence_length}"
    priced = f"A step of {batch}, {optimizer}, {dtype or 'float32'}"
    made = Subject(name, step, shapes, found["weights"], note=found["note"], priced=priced)
    if not widths:
        return replace(made, no_width="the package that defines it makes none narrower")

    def at(width: int) -> Workload:
        return _step(*build()[0](width), dtype, optimizer)

    find = _narrowing(at, widths, step)

    def narrow(flops: int) -> dict[str, Any]:
        label, narrowed = find(flops)
        return {"label": label, "step": narrowed}

    def narrowed(flops: int) -> tuple[str, Workload]:
        content = keep({**asked, "flops": flops}, lambda: narrow(flops))
        return content["label"], content["step"]

    return replace(made, narrowed=narrowed)


def _builder(
    name: str, batch_size: int, length: int
) -> tuple[Callable[[int], tuple[Any, Any]], int]:
    """A function width → (model, batch), and the model's own width."""
    if public_models.is_public(name):
        return public_models.public_model(name, batch_size, length)
    from sparse_train import models

    widths = models.widths(name)
    return lambda width: models.build(name, batch_size, length, width / widths), widths


def _code_of(name: str) -> str | None:
    """The installed code that a model follows from, beside our own; None if from files too."""
    if public_models.is_public(name):
        return public_models.code_of(name)
    from sparse_train.registries import FAMILIES

    family = name.rpartition("-")[0].replace("-", "_")
    return "" if family in FAMILIES.own() else None


def of(
    name: str, model: Any, batch: Any, dtype: str | None = None, layers: Any = None,
    optimizer: str = "adamw",
) -> Subject:  # fmt: skip
    """A torch module and what it is called with; `layers` as in `sparsify`.

    Tables that are named as layers but looked up are no part of `shapes`: no mask changes what
    they cost, and the note says so.

    Raises:
        InputError: no named layer, and no product that a mask acts on.
    """
    from sparse_train.masking.layers import select_layers
    from sparse_train.observing.masks import rows_of

    step = _step(model, batch, dtype, optimizer)
    chosen = select_layers(model, layers, None).layers
    # A layer that the batch never reaches costs nothing, with a mask or without.
    whole = {rows_of(name)[0] or name for name in step.layers}
    reached = [one for one in chosen if one.name in whole]
    shapes = {part: one.part_dims for one in reached for part in one.parts}
    if not shapes and layers is None:
        raise InputError(
            f"{name}: masks act on none of its products, so that none makes its step faster; "
            "allowed is a model with linear or convolutional layers that its batch reaches"
        )
    tables = [one.name for one in chosen if one not in reached]
    note = "" if shapes else (
        f"Its masks lie on {' and '.join(tables)}, which are looked up, not multiplied: they save "
        "memory and no time."
    )  # fmt: skip
    if step.on_values:
        seen = "Traced on real tensors, since it looks at values: other data may cost otherwise."
        note = f"{note} {seen}".strip()
    weights = sum(p.numel() for p in model.parameters())
    return Subject(name, step, shapes, weights, note=note)


def _narrowing(
    steps: Callable[[int], Workload], widths: int, full: Workload
) -> Callable[[int], tuple[str, Workload]]:
    """FLOPs → the narrower dense step, by a function width → step; each width is built once."""
    seen = {widths: full}

    def at(width: int) -> float:
        if width not in seen:
            seen[width] = steps(width)
        return seen[width].dense_flops

    def narrowed(flops: int) -> tuple[str, Workload]:
        # Loads torch, which a step that is kept does not need.
        from sparse_train.narrower import nearest_width

        width = nearest_width(at, widths, flops, full.dense_flops)
        return f"width {width / widths:.0%}, dense", seen[width]

    return narrowed


def _step(model: Any, batch: Any, dtype: str | None, optimizer: str = "adamw") -> Workload:
    """One dense training step; tfloat32 is float32 with products that round to tf32."""
    from sparse_train.workload import workload

    return workload(model, batch, optimizer=optimizer, dtype=dtype)


def of_task(config: TrainConfig, dtype: str | None = None, optimizer: str = "adamw") -> Subject:
    """The training step of a run's model on its task's own data, dense."""
    from sparse_train.runs.run import private_randomness
    from sparse_train.tasks import make_task

    prepared = make_task(config.task, config.task_options).prepare()

    def model_of(options: Mapping[str, Any]) -> Any:
        with private_randomness(0):
            return prepared.priced_model(prepared.build_model(config.model, config.preset, options))

    own = (config.model, config.preset, dict(config.model_options))
    batch = prepared.batch(1, config.batch_size, config.seed)
    name = f"task {config.task}, {config.model}-{config.preset}"
    made = of(name, model_of(own[2]), batch, dtype, config.layers, optimizer)
    widths = prepared.widths(*own)
    if not made.shapes or not widths:
        return made

    def step(width: int) -> Workload:
        narrowed = model_of(prepared.narrowed(*own, width / widths))
        return _step(narrowed, batch, dtype, optimizer)

    return replace(made, narrowed=_narrowing(step, widths, made.step))


def user_made(reference: str, dtype: str | None = None, optimizer: str = "adamw") -> Subject:
    """The model of `module:function` or `file.py:function`, imported from the working directory.

    The function takes nothing and returns (model, batch): a torch.nn.Module and what it is called
    with. Where it takes `width`, a share of the model's own with default 1.0, the narrower dense
    model is priced too.

    Raises:
        InputError: no such module or function, an error in either, or another return value.
    """
    function = _function(reference)
    model, batch = _made(function, reference)
    made = of(reference, model, batch, dtype, optimizer=optimizer)
    if "width" not in inspect.signature(function).parameters:
        return replace(made, no_width=f"{reference} takes no argument `width`, a share of its own")

    def step(width: int) -> Workload:
        return _step(*_made(function, reference, width=width / USER_WIDTHS), dtype, optimizer)

    return replace(made, narrowed=_narrowing(step, USER_WIDTHS, made.step))


def _made(function: Any, reference: str, **width: float) -> tuple[Any, Any]:
    from torch import nn

    made = _call(function, reference, **width)
    if not isinstance(made, tuple) or len(made) != 2:
        raise InputError(
            f"--model {reference}: returned {_described(made)}; allowed is a tuple (model, batch)"
        )
    model, batch = made
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {reference}: model is {_described(model)}; allowed is a torch.nn.Module"
        )
    return model, batch


def too_many(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether masks of all these weights would fit no laptop."""
    return sum(math.prod(shape) for shape in shapes.values()) > SHARED_FROM


def random_masks(
    shapes: Mapping[str, tuple[int, ...]],
    density: float,
    pattern: str,
    distribution: str,
    seed: int,
    layers: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Mask]:
    """A mask of `pattern` for every layer, chosen at random.

    Of models of more than `SHARED_FROM` weights, layers of equal shape and budget share a mask.

    Args:
        shapes: layer → shape of its weight.
        density: of all these weights together.
        pattern: like "unstructured", "2:4", "transposable 2:4", "block:32,32".
        distribution: a name in sparse_train.
        seed: the same seed gives the same masks; each layer has a stream of its own.
        layers: layer → (n_out, n_in) of its mask where the step has it otherwise than
            `mask_shape` (transposed convolutions): `Workload.layers`.

    Raises:
        InputError: an unknown name, or a pattern that does not fit a layer's shape.
    """
    from sparse_train import distributions
    from sparse_train.observing.masks import as_used
    from sparse_train.patterns import projection as projected

    projection = projected(pattern)
    wanted = distributions.distribution(distribution)(shapes, density)
    masks: dict[str, Mask] = {}
    sharing = too_many(shapes)
    shared: dict[tuple, Mask] = {}
    budgets = distributions.budgets(shapes, wanted)
    streams = np.random.SeedSequence(seed).spawn(len(shapes))
    for (name, shape), stream in zip(shapes.items(), streams, strict=True):
        size = _size(name, shape, layers)
        alike = (size, budgets[name])
        if sharing and alike in shared:
            masks[name] = shared[alike]
            continue
        scores = np.random.default_rng(stream).random(size, dtype=np.float32)
        try:
            masks[name] = Mask(projection.project(scores, budgets[name]), copy=False)
            shared[alike] = masks[name]
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from None
    return masks if layers is None else as_used(masks, layers)


def statistical_masks(
    shapes: Mapping[str, tuple[int, ...]], density: float, pattern: str, distribution: str,
    layers: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Mask]:  # fmt: skip
    """Masks of `pattern` for every layer, known by their statistics; equal layers share one.

    Args:
        shapes, density, pattern, distribution, layers: as for `random_masks`.

    Raises:
        InputError: an unknown name, a pattern that does not fit a layer's shape, or one whose
            statistics are not known.
    """
    from hwsim.masks.statistical import StatisticalMask
    from sparse_train import distributions
    from sparse_train.observing.masks import as_used
    from sparse_train.patterns import projection as projected

    projection = projected(pattern)
    wanted = distributions.distribution(distribution)(shapes, density)
    masks: dict[str, Mask] = {}
    shared: dict[tuple, Mask] = {}
    for name, budget in distributions.budgets(shapes, wanted).items():
        shape = _size(name, shapes[name], layers)
        if (shape, budget) not in shared:
            try:
                projection.capacity(shape, budget)
            except InputError as error:
                raise InputError(f"layer {name!r}: {error}") from None
            share = budget / math.prod(shape)
            shared[shape, budget] = StatisticalMask(shape, share, projection.definition)
        masks[name] = shared[shape, budget]
    return masks if layers is None else as_used(masks, layers)


def _size(
    name: str, shape: tuple[int, ...], layers: Mapping[str, tuple[int, int]] | None
) -> tuple[int, int]:
    """(n_out, n_in) of a mask, as the step has it."""
    from sparse_train.naming import mask_shape

    return layers[name] if layers is not None and name in layers else mask_shape(shape)


def from_onnx(
    path: str, batch_size: int, sequence_length: int, dtype: str | None = None,
    optimizer: str = "adamw",
) -> Subject:  # fmt: skip
    """The training step of an ONNX file; zeros of its weights are its masks.

    Args:
        batch_size, sequence_length: of sizes that the file leaves open.

    Raises:
        InputError: the package onnx is missing, or a file that cannot be read or priced.
    """
    from analysis.estimating.onnx_files.step import described, step_of

    step, shapes, masks, weights = step_of(
        Path(path), batch_size, sequence_length, dtype, optimizer
    )
    return Subject(
        Path(path).stem, step, shapes, weights, note=described(masks, len(shapes)), masks=masks,
        no_width="an ONNX file has the width that it has",
    )  # fmt: skip


def _function(reference: str) -> Any:
    function = load(reference, "--model")
    if not callable(function):
        raise InputError(
            f"--model {reference}: is {_described(function)}; "
            "allowed is a function without arguments"
        )
    return function


def _call(function: Any, reference: str, **width: float) -> Any:
    try:
        return function(**width)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--model {reference}: it failed: {_error(error)}") from error


def _described(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
