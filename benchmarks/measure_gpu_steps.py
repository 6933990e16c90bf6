"""Times whole training steps on this machine's GPU, in the form `nettime crosscheck steps` reads.

    python -m benchmarks.measure_gpu_steps steps.jsonl [--minutes 8] [--card NAME] [--stand-ins]

BERT-base, ViT-L, GPT-2 and ResNet-50, in float32 and under autocast, eager and compiled; BERT-base
and ViT-L in bfloat16 too, dense, 2:4 and transposable 2:4 (linear layers alone, each weight masked
and packed in every step); until the minutes are over. Each step is the median of its repetitions
after warming up. Before them come the survey's condensed products
(SRigL's layer of a ViT-B/16: 768 outputs of 3,072 inputs at 10 %, float32, 1 and 256 samples)
beside dense and CSR ones; their records go to steps.kernels.jsonl, and other kernels are
`nettime measure gpu`'s. --stand-ins times small models on the CPU instead, their weights masked and
not packed, and small products in Triton's interpreter (set TRITON_INTERPRET=1), to try the command
where there is no GPU; its rows say so. Needs nettime's own packages, and timm and transformers for
their models: one that is missing is named and left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from analysis.steps.models import PATTERNS, TAKEN, built
from analysis.steps.record import Step, write_steps
from hwsim import InputError
from hwsim.kernels.gpu.suite.steps import MaskedLinear, Packers, cusparselt, working
from hwsim.measured.gpu_suite import FORWARD, GpuCase, PreparedCase, Timer, run_suite
from hwsim.measured.record import Measurement

BERT = {"hidden": 768, "layers": 12, "heads": 12, "ffn": 3072, "vocab": 30522}
GPT2 = {"hidden": 768, "layers": 12, "heads": 12, "ffn": 3072, "vocab": 50257}
SMALL = {"hidden": 64, "layers": 2, "heads": 4, "vocab": 97}
STEPS = (
    Step("bert", "", "training", 32, 1.0, BERT, 128, optimizer="adamw", family="bert"),
    Step("timm:vit_large_patch16_224", "", "training", 32, 1.0, image=224, optimizer="adamw",
         family="vit"),
    Step("gpt2", "", "training", 8, 1.0, GPT2, 1024, optimizer="adamw", family="gpt"),
    Step("timm:resnet50", "", "training", 128, 1.0, image=224, layout="channels_last",
         optimizer="sgd_momentum", family="resnet"),
)  # fmt: skip
SPARSE = ("bert", "timm:vit_large_patch16_224", "decoder")
# Source: Lasby et al. 2023 (SRigL), section 4.3.
SAMPLES, OUTPUTS, INPUTS, DENSITY = (1, 256), 768, 3072, 0.1
CONDENSED_S = 90.0
STAND_INS = (Step("decoder", "", "training", 2, 1.0, SMALL, 32, family="decoder"),)


def cases(stand_ins: bool) -> Iterator[Step]:
    """Each model: under autocast, compiled, then in float32."""
    for precision, compiled in (("amp-bf16", False), ("amp-bf16", True), ("float32", False)):
        for step in STAND_INS if stand_ins else STEPS:
            yield replace(step, precision=precision, compiled=compiled and not stand_ins)
    for step in STAND_INS if stand_ins else STEPS:
        for pattern in PATTERNS if step.model in SPARSE else ():
            yield replace(step, precision="bfloat16", pattern=pattern)


def products(stand_ins: bool) -> list[list[GpuCase]]:
    """Dense, CSR and condensed (gather) products, those of as many samples together."""
    n, k = (8, 32) if stand_ins else (OUTPUTS, INPUTS)
    return [
        [GpuCase(kernel, FORWARD, m, n, k, "float32", 1.0 if kernel == "dense" else DENSITY,
                 graph=not stand_ins)
         for kernel in ("dense", "csr", "gather")]
        for m in ((1, 4) if stand_ins else SAMPLES)
    ]  # fmt: skip


class StandInTimer:
    """Kernels on the CPU, Triton's in its interpreter: what they take says nothing of a GPU."""

    machine = "cpu, stand-ins"

    def toolchain(self, case: GpuCase) -> str:
        return f"torch {torch.__version__}, interpreted"

    def prepare(self, case: GpuCase) -> PreparedCase:
        from hwsim.kernels.gpu.suite.cases import ALLOWED, build, error_of

        try:
            built = build(case, "cpu")
            error = error_of(built)
        except ImportError as missing:
            raise InputError(f"needs the package {missing.name}") from None
        except Exception as failed:  # the interpreter's errors have no common type
            raise RuntimeError(f"{type(failed).__name__}: {failed}") from failed
        if not error <= ALLOWED[case.dtype]:
            raise InputError(f"result is off by {error:.2g}; allowed is {ALLOWED[case.dtype]:.2g}")
        return PreparedCase(built.call, note=built.note)

    def sample(self, prepared: PreparedCase, calls: int) -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            prepared.call()
        return time.perf_counter() - begun


def measure_products(file: Path, stand_ins: bool, card: str) -> list[Measurement]:
    """Times them, writes their records, prints each beside its dense product."""
    timer: Timer
    if stand_ins:
        timer = StandInTimer()
    else:
        from hwsim.kernels.gpu.suite.timer import CudaTimer

        timer = CudaTimer()
        timer.machine = card
    groups, rounds = products(stand_ins), 3 if stand_ins else 15
    done = run_suite(groups, timer, file, budget_s=CONDENSED_S, rounds=rounds)
    for why, count in done.skipped.items():
        print(f"left out: {count} × {why}")
    dense = {r.m: r.median_s for r in done.measured if r.kernel == "dense"}
    for r in done.measured:
        beside = f"{dense[r.m] / r.median_s:6.2f} × dense" if r.m in dense else ""
        print(f"{r.kernel:8} {r.n}×{r.k}, {r.m:4d} samples {1e6 * r.median_s:10.1f} µs {beside}")
    return done.measured


class Masked(torch.nn.Module):
    """A linear layer of any input, its weight under a 2:4 mask and packed in every step."""

    def __init__(self, dense: torch.nn.Linear, packers: Packers, transposable: bool) -> None:
        super().__init__()
        n, k = dense.weight.shape
        tile = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        tile = tile if transposable else tile[:1].expand(4, 4)
        mask = tile.to(dense.weight.device, torch.bool).repeat(n // 4, k // 4)
        self.inner = MaskedLinear(n, k, mask, packers, transposable).to(
            dense.weight.device, dense.weight.dtype
        )
        self.bias = dense.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def sparsified(model: torch.nn.Module, step: Step, rows: int, device: str) -> torch.nn.Module:
    """The model with every linear layer that kernels take under a mask, as `masks_of` prices it."""
    transposable = step.pattern.startswith("transposable")
    way = Packers(lambda w: w, lambda w: (w, w.t().contiguous()), "not packed")
    if device == "cuda":
        case = GpuCase(f"bert-base {step.pattern}", "step", rows, 768, 1, step.precision)
        way = working(cusparselt(rows), case, device)
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or any(s % TAKEN for s in layer.weight.shape):
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Masked(layer, way, transposable))
    return model


def median_s(step: Step, device: str, least_s: float = 2.0) -> float:
    """Seconds of one step: forward, backward, optimizer."""
    model, batch, loss = built(step)
    torch.manual_seed(0)
    model = model.to_empty(device=device).train()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor.detach(), std=0.02)
    kind = getattr(torch, step.precision, torch.float32)
    model = model.to(kind)
    if step.pattern != "dense":
        rows = step.batch * (step.sequence or 197)
        model = sparsified(model, step, rows, device)
    if step.layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
    run = torch.compile(model) if step.compiled else model
    rule = torch.optim.SGD if step.optimizer.startswith("sgd") else torch.optim.AdamW
    more = {"momentum": 0.9} if step.optimizer == "sgd_momentum" else {}
    optimizer = rule(model.parameters(), lr=1e-4, **more)
    batch = _on(batch, device, kind)
    half = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}.get(step.precision)

    def once() -> None:
        with torch.autocast(device, half or torch.bfloat16, enabled=half is not None):
            out = run(**batch) if isinstance(batch, dict) else run(batch)
        found = loss(out) if loss else getattr(out, "loss", out)
        found.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        once()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < least_s:
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _on(batch: object, device: str, kind: torch.dtype) -> object:
    if isinstance(batch, dict):
        return {k: _on(v, device, kind) for k, v in batch.items()}
    if isinstance(batch, torch.Tensor):
        moved = torch.zeros_like(batch, device=device) if batch.is_meta else batch.to(device)
        return moved.to(kind) if moved.is_floating_point() else moved
    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--card", default="", help="what to call the card; its name without")
    parser.add_argument("--stand-ins", action="store_true")
    options = parser.parse_args()
    if not options.stand_ins and not torch.cuda.is_available():
        raise InputError("this machine has no GPU that torch can use; allowed here: --stand-ins")
    device = "cpu" if options.stand_ins else "cuda"
    card = options.card or ("cpu, stand-ins" if device == "cpu" else torch.cuda.get_device_name())
    end, done = time.monotonic() + 60.0 * options.minutes, []
    measure_products(options.file.with_suffix(".kernels.jsonl"), options.stand_ins, card)
    for step in cases(options.stand_ins):
        if time.monotonic() > end:
            print(f"out of time before {step.model}, {step.precision}")
            break
        try:
            seconds = median_s(step, device, 0.2 if options.stand_ins else 2.0)
        except InputError as error:
            print(f"left out: {error}")
            continue
        source = f"measure_gpu_steps, torch {torch.__version__}"
        done.append(replace(step, device=card, seconds=seconds, source=source))
        write_steps(options.file, done)
        how = "compiled" if step.compiled else "eager"
        what = f"{step.model:28} {step.precision:9} {how:9} {step.pattern:17}"
        print(f"{what} {1e3 * seconds:9.2f} ms", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"measure_gpu_steps: error: {error}") from None
