"""`nettime estimate`: what a training step costs, dense and sparse, device by device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from analysis.estimating.pricing import Setting, price, told
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.estimating.subject import Subject
    from hwsim import Device
    from sparse_train.runs.config import TrainConfig

GROUPINGS = ("phase", "kind", "layer")
# Settings of a run that decide what its dense step is; the rest are options of this command.
OF_A_STEP = ("layers", "model_options", "task_options")
# Of the layers, the table shows those that cost most; JSON has all.
TOP_LAYERS = 24


def register(app: typer.Typer) -> None:
    """Adds `nettime estimate`."""
    app.command(
        "estimate",
        short_help="What a training step costs at a density, and what limits it.",
        epilog=options.examples(
            "nettime estimate bert-base --density 0.1 --device ideal --device wafer",
            "nettime estimate bert-base --sparsity 0.9 --algorithm rigl --by layer",
            "nettime estimate bert-base --sweep 0.05:0.9 --plot speed_up.svg",
            "nettime estimate bert-base -d h200 -d wafer --what-if bert.html",
            "nettime estimate bert-base --density 0.5 --pattern 2:4 --dtype bfloat16 -d h200",
            "nettime estimate bert-base --density 0.1 -d a100 --by layer --plot roofline.svg",
            "nettime estimate bert-base --density 0.1 -d sigma-like --explain encoder.0.up",
            "nettime estimate bert-base --dtype amp-bf16 --gpus 8 --parallel fsdp",
            "nettime estimate hf:gpt2 --batch-size 4 --sequence-length 1024 -d h200",
            "nettime estimate my_model.onnx -d h200 --dtype bfloat16",
            "nettime estimate --task images --model resnet --preset 18 --density 0.1",
            "nettime estimate --model my_module:make_model --density 0.2 --json",
        ),
    )(estimate)


def estimate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="By name: bert-base, hf:gpt2, timm:resnet50; or a file.onnx."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Your own: module:function, a function returning (model, batch). With --task: "
            "the kind of network, as nettime train has it."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="A task of nettime tasks: its own model on its own data.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="With --task: size of the model; default: the task's.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="With --task: task_options, model_options or layers, as name=value."
        ),
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Active share of the masked weights; default 0.1.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="1 − density; give one of the two.")
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(
            help="What masks look like: unstructured, 2:4, 'transposable 2:4', block:32, "
            "v_n_m:64,2,8."
        ),
    ] = "unstructured",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of weights, activations and optimizer: float32, tf32 (products only), bfloat16 "
            "or float16; default: the model's own."
        ),
    ] = None,
    optimizer: Annotated[
        str,
        typer.Option(
            help="Whose step: sgd, sgd_momentum, adam, adamw, adamw8bit, in one fused kernel; "
            "adamw-foreach as torch does by default, adamw-unfused parameter by parameter."
        ),
    ] = "adamw",
    distribution: Annotated[
        str, typer.Option(help="How layers share the weights: uniform, er or erk.")
    ] = "uniform",
    device: options.Devices = None,
    batch_size: Annotated[int, typer.Option(help="Sequences or samples per step.")] = 8,
    sequence_length: Annotated[int, typer.Option(help="Tokens per sequence.")] = 128,
    algorithm: Annotated[
        str, typer.Option(help="Its mask updates are counted: static, set, rigl.")
    ] = "static",
    update_interval: Annotated[
        int | None, typer.Option(help="Steps between mask updates; default: the algorithm's.")
    ] = None,
    by: Annotated[str, typer.Option(help="Rows: phase, kind or layer.")] = "phase",
    every: Annotated[
        bool,
        typer.Option("--all", help=f"With --by layer: every layer, not the {TOP_LAYERS} dearest."),
    ] = False,
    sweep: Annotated[
        str | None, typer.Option(help="Densities: low:high, low:high:count, or a,b,c.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Where a figure goes, .svg, .png or .pdf: of a sweep its curves, else the step "
            "under each device's roofline."
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            help="A layer: what limits it, who has most to do, and which masks would help."
        ),
    ] = None,
    cluster: Annotated[
        str, typer.Option(help="With --gpus: whose links and cards; a name or a .toml file.")
    ] = "hgx_h100",
    gpus: Annotated[
        int | None, typer.Option(help="Cards: the step is priced on a cluster of so many.")
    ] = None,
    parallel: Annotated[
        str,
        typer.Option(
            help="With --gpus: ddp, zero1, zero2, fsdp, hsdp, tp=8,pp=2, recompute=full, m=8 "
            "(micro-batches), values=1; or auto, which searches."
        ),
    ] = "fsdp",
    recompute: Annotated[
        str | None,
        typer.Option(
            help="With --gpus: activations that are computed again: none, selective, full, or "
            "full/4 for each 4th layer."
        ),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="With --gpus: find the batch of a card, the split and the recomputation that fit "
            "and are fastest.",
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="With --gpus: a whole training of so many steps too.")
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="With --steps: constant, or gradual: pruned from dense.")
    ] = "constant",
    trace: Annotated[
        Path | None,
        typer.Option(help="Where the step's timeline goes, for ui.perfetto.dev: a .json."),
    ] = None,
    what_if: Annotated[
        Path | None,
        typer.Option(
            "--what-if",
            metavar="FILE",
            help="An HTML page with sliders for density, pattern and batch on all devices.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random masks.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Prices one training step (forward, both gradients, update) under random masks.

    Everything is counted: dense layers, attention, optimizer, packing of changed values, and for
    an algorithm that moves its masks the share of an update in every step. Beside it stands the
    dense step, and for our own models a narrower dense one of the same arithmetic.
    """
    _exclusive((name, None if task else model, task), density, sparsity, sweep)
    if task is None and (preset is not None or settings):
        raise InputError(
            "--preset, --set: need --task; a model by name has its size in it, as bert-base has"
        )
    options.chosen("--by", by, GROUPINGS)
    if every and by != "layer":
        raise InputError(f"--all: is given with --by {by}; allowed is --by layer")
    devices = options.load_devices(device)
    setting = _setting(pattern, distribution, algorithm, update_interval, seed)
    from analysis.estimating import sweep as sweeping

    densities = sweeping.densities(sweep) if sweep else [_density(density, sparsity)]
    options.figure("--plot", plot)
    options.written("--trace", trace, ".json")
    options.written("--what-if", what_if, ".html")
    if plot is not None and (explain is not None or gpus is not None):
        raise InputError("--plot: cannot be combined with --explain or --gpus")
    if explain is not None and sweep is not None:
        raise InputError("--explain: needs one density; --sweep gives several")
    options.at_least("--batch-size", batch_size)
    options.at_least("--sequence-length", sequence_length)
    from sparse_train.observing.optimizers import OPTIMIZERS

    options.chosen("--optimizer", optimizer, tuple(OPTIMIZERS))
    # Moments are kept in 32 bits beside 16-bit weights too.
    moments = float(OPTIMIZERS[optimizer].held_bytes(4))
    if steps is not None:
        options.at_least("--steps", steps)
    options.chosen("--schedule", schedule, ("constant", "gradual"))
    from analysis.estimating import subject

    if what_if is not None and (sweep or explain or gpus or plot or trace):
        raise InputError(
            "--what-if: cannot be combined with --sweep, --plot, --trace, --explain or --gpus"
        )
    if dtype is not None:
        dtype = subject.DTYPES[options.chosen("--dtype", dtype, tuple(subject.DTYPES))]

    def made(batch: int) -> Subject:
        if task is not None:
            config = _of_task(task, model, preset, batch, settings or [])
            return subject.of_task(config, dtype, optimizer)
        if str(name).endswith(".onnx"):
            found = subject.from_onnx(str(name), batch, sequence_length, dtype, optimizer)
            own_masks = density is None and sparsity is None and not (sweep or what_if)
            return found if own_masks else replace(found, masks={})
        return subject.named(str(name), batch, sequence_length, dtype, optimizer)

    if what_if is not None:
        own = subject.user_made(model, dtype, optimizer) if model and not task else None
        return _what_if(own, made, batch_size, devices, setting, what_if, as_json)
    from analysis.display.console import progress_bar

    with progress_bar(f"observing a step of {name or model or task}", 1):
        what = (
            subject.user_made(model, dtype, optimizer)
            if model is not None and task is None
            else made(batch_size)
        )
    if gpus is not None:
        if explain:
            raise InputError("--gpus: cannot be combined with --explain")
        from analysis.estimating import clusters, clusters_page

        run = None if steps is None else clusters.TrainingLength(steps, schedule)
        chosen = clusters.AUTO if fit and not parallel.startswith(clusters.AUTO) else parallel
        chosen += _recompute_words(recompute)
        asked = clusters.Asked(what, cluster, gpus, chosen, setting, moments, run)
        own = made if fit and (model is None or task is not None) else None
        return clusters_page.show(asked, densities, trace=trace, as_json=as_json, made=own)
    if recompute is not None:
        raise InputError("--recompute: needs --gpus, the number of cards; one is allowed")
    if fit or steps is not None:
        raise InputError("--fit, --steps: need --gpus, the number of cards")
    if trace is not None and (sweep or explain):
        raise InputError("--trace: cannot be combined with --sweep or --explain")
    if sweep:
        return sweeping.show(what, devices, densities, setting, plot, as_json)
    if explain is not None:
        from analysis.estimating import explain as explaining

        _, sparse = price(what, [], densities[0], setting)
        return explaining.show(
            what.name, devices, sparse, explain, setting.described("phase"), as_json,
            told(what, setting),
        )  # fmt: skip
    top = 0 if every else TOP_LAYERS
    from analysis.estimating import answer

    return answer.show(what, devices, densities[0], setting, by, as_json, top, plot, trace, moments)


def _recompute_words(given: str | None) -> str:
    """Of a plan: "full/4" is `recompute=full,every=4`."""
    if given is None:
        return ""
    how, slash, every = given.partition("/")
    return f",recompute={how}" + (f",every={every}" if slash else "")


def _what_if(
    own: Subject | None, made: Callable[[int], Subject], batch_size: int,
    devices: Sequence[Device], setting: Setting, path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Writes the page; of a model of the user's, whose batch is its own, with that alone."""
    import sys

    from analysis.display.console import print_json, progress_bar, stdout
    from analysis.estimating import what_if
    from analysis.reporting import provenance
    from analysis.reporting import report as pages

    batches = what_if.batches(batch_size) if own is None else (1,)
    subjects = {b: own or made(b) for b in batches}
    patterns = tuple(dict.fromkeys((setting.pattern, *what_if.PATTERNS)))
    first = subjects.get(batch_size) or own or next(iter(subjects.values()))
    unit = "batch of its own" if own else "samples"
    with progress_bar(f"pricing {first.name}", len(patterns) * len(what_if.DENSITIES)) as update:
        grid = what_if.grid(subjects, devices, setting, patterns=patterns, unit=unit, done=update)
    notes = [
        n for n in (first.priced and f"{first.priced}, and of other batches.", first.note) if n
    ]
    origin = provenance.of_command(["nettime", *sys.argv[1:]])
    written = pages.write(pages.what_if(grid, notes, origin), path)
    if as_json:
        return print_json({"command": "estimate", "model": first.name, "what_if": written})
    stdout().print(f"what if: {written}", soft_wrap=True)
    return None


def _exclusive(
    sources: Sequence[str | None], density: float | None, sparsity: float | None,
    sweep: str | None,
) -> None:  # fmt: skip
    if sum(source is not None for source in sources) != 1:
        raise InputError(
            "model: give one of a name, like bert-base, --model module:function, or --task name"
        )
    given = [
        option
        for option, value in (("--density", density), ("--sparsity", sparsity), ("--sweep", sweep))
        if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: both are given; allowed is one of them")


def _of_task(
    task: str, model: str | None, preset: str | None, batch_size: int, settings: Sequence[str]
) -> TrainConfig:
    """The run whose dense step is priced; settings that would not change it are refused."""
    from hwsim.errors import unknown

    for setting in settings:
        name = setting.partition("=")[0]
        if name not in OF_A_STEP:
            raise InputError(unknown("setting of a step", name, OF_A_STEP))
    content: dict[str, Any] = {"task": task, "batch_size": batch_size}
    content |= {k: v for k, v in (("model", model), ("preset", preset)) if v is not None}
    return options.config(content, settings)


def _density(density: float | None, sparsity: float | None) -> float:
    if sparsity is not None:
        return 1.0 - options.share("--sparsity", sparsity)
    return options.share("--density", 0.1 if density is None else density)


def _setting(
    pattern: str, distribution: str, algorithm: str, update_interval: int | None, seed: int
) -> Setting:
    from sparse_train.algorithms import ALGORITHMS
    from sparse_train.distributions import DISTRIBUTIONS
    from sparse_train.patterns import projection

    projection(pattern)
    DISTRIBUTIONS.check(distribution)
    rule = ALGORITHMS.get(algorithm)
    if update_interval is not None:
        options.at_least("--update-interval", update_interval)
    options.at_least("--seed", seed, 0)
    own = rule.update_interval
    return Setting(
        pattern, distribution, seed, algorithm,
        own if update_interval is None or own == 0 else update_interval,
    )  # fmt: skip
