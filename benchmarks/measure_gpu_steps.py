"""Times whole training steps on this machine's GPU, in the form `nettime crosscheck steps` reads.

    python -m benchmarks.measure_gpu_steps steps.jsonl [--minutes 8] [--card NAME] [--stand-ins]

BERT-base, ViT-L, GPT-2 and ResNet-50, in float32 and under autocast, eager and compiled, until the
minutes are over; each step is the median of its repetitions after warming up. Kernels by
themselves, 2:4 and condensed products are `nettime measure gpu`'s. --stand-ins times small models
on the CPU instead, to try the command where there is no GPU; its rows say so. Needs nettime's own
packages, and timm and transformers for their models: one that is missing is named and left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from analysis.steps.models import built
from analysis.steps.record import Step, write_steps
from hwsim import InputError

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
STAND_INS = (Step("decoder", "", "training", 2, 1.0, SMALL, 32, family="decoder"),)


def cases(stand_ins: bool) -> Iterator[Step]:
    """Each model: under autocast, compiled, then in float32."""
    for precision, compiled in (("amp-bf16", False), ("amp-bf16", True), ("float32", False)):
        for step in STAND_INS if stand_ins else STEPS:
            yield replace(step, precision=precision, compiled=compiled and not stand_ins)


def median_s(step: Step, device: str, least_s: float = 2.0) -> float:
    """Seconds of one step: forward, backward, optimizer."""
    model, batch, loss = built(step)
    torch.manual_seed(0)
    model = model.to_empty(device=device).train()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor.detach(), std=0.02)
    if step.layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
    run = torch.compile(model) if step.compiled else model
    rule = torch.optim.SGD if step.optimizer.startswith("sgd") else torch.optim.AdamW
    more = {"momentum": 0.9} if step.optimizer == "sgd_momentum" else {}
    optimizer = rule(model.parameters(), lr=1e-4, **more)
    batch = _on(batch, device)
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


def _on(batch: object, device: str) -> object:
    if isinstance(batch, dict):
        return {k: _on(v, device) for k, v in batch.items()}
    if isinstance(batch, torch.Tensor):
        return torch.zeros_like(batch, device=device) if batch.is_meta else batch.to(device)
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
        print(f"{step.model:32} {step.precision:9} {how:9} {1e3 * seconds:9.2f} ms", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"measure_gpu_steps: error: {error}") from None
