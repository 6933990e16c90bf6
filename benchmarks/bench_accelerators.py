"""Speed of the accelerator models on one core, beside SCALE-Sim 3.0.0.

    python benchmarks/bench_accelerators.py [--rounds 5] [--skip-scalesim] [--json]

Prints three things: one BERT FFN GEMM (128×3072×768 on a 32×32 weight-stationary array) by
SCALE-Sim and by `systolic`, with the cycles of both; estimates a second of a BERT-base training
step (72 linears, 8×128 tokens, three phases) per device, with all masks fresh and with masks
cached, by the clock and by CPU time, which other work on the machine spoils less; and the memory
that such an estimate takes above the masks. SCALE-Sim takes about two minutes and runs in an
environment of its own, made under the user's cache folder (it needs numpy below 2.4); where that
cannot be made it is skipped and the reason printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from pathlib import Path

DEVICES = ("wafer", "systolic", "tpu-like", "sigma-like")
GEMM = (128, 3072, 768)
ARRAY = 32

_SCALESIM_CONFIG = f"""
[general]
run_name = gemm
[architecture_presets]
ArrayHeight = {ARRAY}
ArrayWidth = {ARRAY}
IfmapSramSzkB = 64
FilterSramSzkB = 64
OfmapSramSzkB = 64
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = ws
Bandwidth = 10
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""

_SCALESIM_SCRIPT = """
import glob, sys, time
from scalesim.scale_sim import scalesim
folder = sys.argv[1]
run = scalesim(save_disk_space=True, verbose=False, config=folder + "/scale.cfg",
               topology=folder + "/gemm.csv", layout=folder + "/layout.csv", input_type_gemm=True)
start = time.perf_counter()
run.run_scale(top_path=folder + "/out")
seconds = time.perf_counter() - start
report = open(glob.glob(folder + "/out/*/COMPUTE_REPORT.csv")[0]).read().splitlines()
names = [n.strip() for n in report[0].split(",")]
cycles = report[1].split(",")[names.index("Total Cycles")]
print("RESULT", seconds, int(float(cycles)))
"""

_MEMORY_SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from bench_accelerators import bert_step, fresh_masks
from hwsim import load_device

def resident(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith(key)).split()[1]) / 1024

step = bert_step()
masks = fresh_masks(step, 0)
masked = step.with_masks(masks)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
before = resident("VmRSS")
load_device({name!r}).estimate(masked)
print("RESULT", resident("VmHWM") - before, sum(m.size for m in masks.values()) / 2**20)
"""


def bert_step():
    """The 216 products of the 72 linears of BERT-base, 1,024 tokens."""
    from hwsim import Workload, gemm

    ops = []
    for layer in range(12):
        shapes = {"query": (768, 768), "key": (768, 768), "value": (768, 768)}
        shapes |= {"out": (768, 768), "up": (3072, 768), "down": (768, 3072)}
        for name, (n, k) in shapes.items():
            for phase in ("forward", "grad_input", "grad_weight"):
                ops.append(gemm(1024, n, k, phase=phase, name=f"{layer}.{name}"))
    return Workload(tuple(ops), "BERT-base linears")


def fresh_masks(step, seed: int, density: float = 0.1) -> dict:
    """One unstructured mask per layer."""
    import numpy as np

    from hwsim import Mask

    rng = np.random.default_rng(seed)
    return {
        name: Mask(rng.random(shape, dtype=np.float32) < density, copy=False)
        for name, shape in step.layers.items()
    }


def bench_step(name: str, rounds: int) -> dict:
    from hwsim import Workload, load_device

    device, step = load_device(name), bert_step()
    fresh, cached, cpu = [], [], []
    for seed in range(rounds + 1):
        masked = step.with_masks(fresh_masks(step, seed))
        products = Workload(tuple(op for op in masked.ops if op.kind == "gemm"))
        start, begun = time.perf_counter(), time.thread_time()
        device.estimate(products)
        if seed:
            cpu.append(time.thread_time() - begun)
            fresh.append(time.perf_counter() - start)
        for _ in range(20):
            start = time.perf_counter()
            device.estimate(products)
            cached.append(time.perf_counter() - start)
    return {
        "device": name,
        "fresh_per_s": 1 / statistics.median(fresh),
        "fresh_best_per_s": 1 / min(fresh),
        "fresh_cpu_per_s": 1 / min(cpu),
        "cached_per_s": 1 / statistics.median(cached),
    }


def bench_memory(name: str) -> dict:
    """Peak above the masks, compiled code and libraries included; Linux only."""
    code = _MEMORY_SCRIPT.format(folder=str(Path(__file__).parent), name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "RESULT" not in done.stdout:
        return {"device": name, "skipped": (done.stderr.splitlines() or ["no output"])[-1]}
    above, masks = map(float, done.stdout.split("RESULT")[1].split())
    return {"device": name, "above_masks_mib": above, "masks_mib": masks}


def bench_gemm(rounds: int) -> dict:
    """Seconds of a first-time estimate of the GEMM: a new device each time, nothing cached."""
    from hwsim import gemm, load_device

    free = dict.fromkeys(
        ("dram_bandwidth", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"),
        math.inf,
    )
    op, seconds, cycles = gemm(*GEMM), [], 0.0
    for i in range(50 * rounds):
        device = load_device("systolic", rows=ARRAY, cols=ARRAY, dataflow="ws", sparsity_n=1,
                             sparsity_m=1, dram_latency_s=0.0, **free)  # fmt: skip
        start = time.perf_counter()
        cycles = device.estimate(op).cycles
        if i:
            seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "cycles": round(cycles)}


def scalesim_python() -> Path:
    """The interpreter of an environment with SCALE-Sim, made on first use.

    Raises:
        RuntimeError: it cannot be made; the reason.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "nettime" / "scalesim-3.0.0"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        try:
            venv.create(folder, with_pip=True)
            subprocess.run(
                [python, "-m", "pip", "install", "-q", "scalesim==3.0.0", "numpy<2.4"],
                check=True, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            detail = (getattr(error, "stderr", "") or str(error)).strip()
            raise RuntimeError(detail.splitlines()[-1]) from None
        (folder / "ready").touch()
    return python


def bench_scalesim() -> dict:
    try:
        python = scalesim_python()
    except RuntimeError as error:
        return {"skipped": f"no environment with scalesim 3.0.0: {error}"}
    with tempfile.TemporaryDirectory() as folder:
        m, n, k = GEMM
        Path(folder, "scale.cfg").write_text(_SCALESIM_CONFIG)
        Path(folder, "gemm.csv").write_text(f"Layer,M,N,K,\nffn,{m},{n},{k},\n")
        Path(folder, "layout.csv").write_text("Layer,\n")
        Path(folder, "run.py").write_text(textwrap.dedent(_SCALESIM_SCRIPT))
        done = subprocess.run(
            [python, Path(folder, "run.py"), folder], capture_output=True, text=True, timeout=1800
        )
    if "RESULT" not in done.stdout:
        reason = (done.stderr or done.stdout).strip().splitlines()
        return {"skipped": f"SCALE-Sim failed: {reason[-1] if reason else done.returncode}"}
    seconds, last = done.stdout.split("RESULT")[1].split()[:2]
    return {"seconds": float(seconds), "last_cycle": int(last)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="fresh sets of masks per device")
    parser.add_argument("--skip-scalesim", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()
    found = {
        "gemm": bench_gemm(args.rounds),
        "scalesim": {"skipped": "not asked for"} if args.skip_scalesim else bench_scalesim(),
        "steps": [bench_step(name, args.rounds) for name in DEVICES],
        "memory": [bench_memory(name) for name in DEVICES],
    }
    if args.json:
        print(json.dumps(found))
        return
    ours, theirs = found["gemm"], found["scalesim"]
    m, n, k = GEMM
    print(f"GEMM {m}×{n}×{k}, {ARRAY}×{ARRAY} array, weight stationary")
    print(f"  nettime    {ours['seconds'] * 1e6:12.1f} µs  {ours['cycles']} cycles")
    if "skipped" in theirs:
        print(f"  SCALE-Sim  skipped: {theirs['skipped']}")
    else:
        print(f"  SCALE-Sim  {theirs['seconds'] * 1e6:12.1f} µs  last cycle {theirs['last_cycle']}")
        print(f"  ratio      {theirs['seconds'] / ours['seconds']:12.0f} ×")
    print("BERT-base step, 216 products, 10 % density, estimates a second")
    for row in found["steps"]:
        print(
            f"  {row['device']:<11} fresh masks {row['fresh_per_s']:7.0f} "
            f"(best {row['fresh_best_per_s']:.0f}, by CPU time {row['fresh_cpu_per_s']:.0f})   "
            f"cached {row['cached_per_s']:7.0f}"
        )
    print("Peak memory of a first estimate above the masks")
    for row in found["memory"]:
        if "skipped" in row:
            print(f"  {row['device']:<11} skipped: {row['skipped']}")
            continue
        print(
            f"  {row['device']:<11} {row['above_masks_mib']:6.1f} MiB "
            f"(masks {row['masks_mib']:.0f} MiB)"
        )


if __name__ == "__main__":
    main()
