"""CUDA events around real kernels: the suite's timer where a GPU is at hand."""

from __future__ import annotations

import subprocess

import torch

from hwsim.errors import InputError
from hwsim.kernels.gpu.suite.cases import ALLOWED, MODULES, TRITON, build, error_of
from hwsim.kernels.gpu.suite.steps import build_step, cusparselt, working
from hwsim.measured.gpu_suite import GpuCase, PreparedCase
from hwsim.measured.record import STEP

_IN_A_GRAPH = 10
_WARM_UP = 3


class CudaTimer:
    """Times cases on the current CUDA device.

    In a graph ten runs are captured and replayed, so that the host's launches are not in the time;
    eagerly the host launches each one. Both are between two CUDA events. A kernel whose result is
    not the product's is refused.

    Raises:
        InputError: no CUDA device.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise InputError(
                "measure gpu: no CUDA device here (torch.cuda.is_available() is False); "
                "allowed is a machine with an NVIDIA GPU and a CUDA build of torch"
            )
        self.machine = torch.cuda.get_device_name()

    def toolchain(self, case: GpuCase) -> str:
        """Versions of what the kernel is made with."""
        base = f"torch {torch.__version__}"
        if MODULES.get(case.kernel) in TRITON:
            import triton

            return f"{base}, Triton {triton.__version__}"
        if case.kernel.endswith("dense"):
            return f"{base}, cuBLAS"
        return f"{base}, {'CUTLASS' if case.kernel == '2:4 cutlass' else 'cuSPARSELt'}"

    def prepare(self, case: GpuCase) -> PreparedCase:
        """Operands and kernel of a case on the GPU, ready to be called."""
        torch.cuda.empty_cache()
        torch.backends.cuda.matmul.allow_tf32 = case.dtype == "tfloat32"
        try:
            return self._step(case) if case.phase == STEP else self._kernel(case)
        except (InputError, RuntimeError, NotImplementedError):
            raise
        except Exception as error:  # Triton's errors of compiling have no common type
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def _step(self, case: GpuCase) -> PreparedCase:
        packers = None
        if not case.kernel.endswith("dense"):
            packers = working(cusparselt(case.m), case, "cuda")
        step = build_step(case, "cuda", packers)
        for _ in range(_WARM_UP):
            step()
        return PreparedCase(step, note=packers.name if packers else "")

    def _kernel(self, case: GpuCase) -> PreparedCase:
        built = build(case, "cuda")
        error = error_of(built)
        if not error <= ALLOWED[case.dtype]:  # also where it is NaN
            raise InputError(f"result is off by {error:.2g}; allowed is {ALLOWED[case.dtype]:.2g}")
        for _ in range(_WARM_UP):
            built.call()
        torch.cuda.synchronize()
        if not case.graph:
            return PreparedCase(built.call, note=built.note)
        graph = torch.cuda.CUDAGraph()
        # Relaxed: a library that makes its plan in the call may ask the driver for memory.
        with torch.cuda.graph(graph, capture_error_mode="relaxed"):
            for _ in range(_IN_A_GRAPH):
                built.call()
        return PreparedCase(graph.replay, _IN_A_GRAPH, built.note)

    def sample(self, prepared: PreparedCase, calls: int) -> float:
        """Seconds that so many calls take together, by the GPU's events."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        try:
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                prepared.call()
            end.record()
            torch.cuda.synchronize()
        except RuntimeError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"measure gpu: the device failed while it was timed: {first}"
            ) from None
        return start.elapsed_time(end) * 1e-3


def clocks() -> str:
    """SM clock, power and temperature now, as nvidia-smi tells; empty where it does not."""
    query = "clocks.sm,power.draw,temperature.gpu"
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.splitlines()[0].strip() if found.stdout else ""
