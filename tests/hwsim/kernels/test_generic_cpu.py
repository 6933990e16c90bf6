"""Without AVX: kernels and simulations compiled for a generic processor give the same results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwsim.kernels.cpu import LINEAR

ROOT = Path(__file__).parents[3]
GENERIC = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
# Everything that is counted as JSON, everything that is added up in float32 as an array.
SCRIPT = """
import dataclasses, json, sys
import numpy as np
from hwsim import Mask, gemm, load_device
from hwsim.caches.traces import layer_counts
from hwsim.kernels.cpu import LINEAR
from hwsim.kernels.cpu.selection import top_k_mask
from hwsim.kernels.cpu.vector import has_avx2
sys.path.insert(0, "tests/hwsim/kernels")
from test_cpu_linear import suitable_mask
rng = np.random.default_rng(0)
mask = Mask(rng.random((96, 160)) < 0.2)
counts = {"avx2": has_avx2()}
for kernel in ("csr", "gather", "tiled"):
    for policy in ("lru", "fifo"):
        found = layer_counts(kernel, mask, 16, policy=policy)
        counts[f"{kernel} {policy}"] = repr(dataclasses.asdict(found))
scores = rng.random((96, 160), dtype=np.float32)
counts["selected"] = top_k_mask(scores, 1234).nonzero()[0].tolist()
for name in ("wafer", "sigma-like", "systolic", "tpu-like"):
    device = load_device(name)
    counts[name] = [device.estimate(gemm(64, 96, 160, mask, phase, "bfloat16")).cycles
                    for phase in ("forward", "grad_input", "grad_weight")]
arrays = {}
for name in LINEAR.names():
    own = suitable_mask(name, rng, 72, 160, 0.2)
    weights = rng.standard_normal(own.shape).astype(np.float32)
    layer = LINEAR.get(name)(own, weights)
    x, dy = (rng.standard_normal((8, size)).astype(np.float32) for size in own.shape[::-1])
    for phase, given in (("forward", (x,)), ("grad_input", (dy,)), ("grad_weight", (dy, x))):
        if phase in layer.phases:
            arrays[f"{name} {phase}"] = getattr(layer, phase)(*given)
np.savez(sys.argv[1], **arrays)
print(json.dumps(counts))
"""


def _run(command, cache, more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CPU")}
    environment = {**kept, "NUMBA_CACHE_DIR": str(cache), **more}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_generic_processor_counts_and_adds_up_the_same(cache, tmp_path):
    found = {}
    for name, more in (("generic", GENERIC), ("host", {})):
        path = tmp_path / f"{name}.npz"
        counts = json.loads(_run(["-c", SCRIPT, str(path)], cache, more))
        with np.load(path) as arrays:
            found[name] = counts, dict(arrays)
    (counts, arrays), (theirs, others) = found["generic"], found["host"]
    assert counts.pop("avx2") is False
    theirs.pop("avx2")
    assert counts == theirs
    assert set(arrays) == set(others) and len(arrays) >= len(LINEAR.names())
    for name, array in arrays.items():  # other orders of sums, and no fused multiply-add
        np.testing.assert_allclose(array, others[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_holds_of_kernels_and_caches_holds_on_a_generic_processor(cache):
    suites = ("tests/hwsim/kernels/test_cpu_linear.py", "tests/hwsim/kernels/test_selection.py",
              "tests/hwsim/caches")  # fmt: skip
    _run(["-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow",
          *suites], cache, GENERIC)  # fmt: skip
