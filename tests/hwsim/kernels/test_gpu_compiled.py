"""Triton's V:N:M kernels compiled for real cards, without one: what the interpreter cannot tell."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed (the extra 'gpu' has it)")

# Compute capability → the instruction of its tensor cores.
TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from hwsim.kernels.gpu import v_n_m

NAMES = {
    v_n_m._gathered_times: {"columns": "*i32", "values": "*T", "features": "*T", "out": "*T"},
    v_n_m._scattered_times: {"columns": "*i32", "values": "*T", "dy": "*T", "out": "*fp32"},
    v_n_m._sampled_columns: {
        "columns": "*i32", "active": "*u8", "dy": "*T", "features": "*T", "out": "*fp32"},
}
CONSTANTS = {"side": 64, "height": v_n_m._HEIGHT, "chunk": v_n_m._CHUNK, "wide": False}
dtype, capability = sys.argv[1], int(sys.argv[2])
for kernel, pointers in NAMES.items():
    signature = {name: kind.replace("T", dtype) for name, kind in pointers.items()}
    signature |= dict.fromkeys(("m", "outputs", "slots"), "i32")
    signature |= dict.fromkeys(CONSTANTS, "constexpr")
    source = ASTSource(
        fn=kernel, signature=signature,
        constexprs={(list(signature).index(n),): v for n, v in CONSTANTS.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, k in enumerate(signature.values())
               if k != "constexpr"})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert sys.argv[3] in made.asm["ptx"], kernel.__name__
    if kernel is v_n_m._scattered_times:
        assert "red.global" in made.asm["ptx"]  # adds, and does not wait for the sum
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "capability"), [("bf16", 80), ("bf16", 90), ("bf16", 100), ("fp16", 90)]
)
def test_v_n_m_kernels_compile_to_tensor_cores(dtype, capability, tmp_path):
    rest = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, dtype, str(capability), TENSOR_CORES[capability]],
        env={**rest, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
