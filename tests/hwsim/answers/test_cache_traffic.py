"""What a kernel does to the caches, beside what its price assumes."""

import numpy as np
import pytest

from hwsim import Mask, gemm, load_device
from hwsim.answers.cache_traffic import Traffic, cache_traffic
from hwsim.caches.traces import layer_counts

ZEN3 = load_device("zen3")


def product(phase="forward", density=0.1, m=64):
    mask = Mask(np.random.default_rng(0).random((96, 160)) < density)
    return gemm(m, 96, 160, mask, phase)


@pytest.mark.parametrize("kernel", ["csr", "gather", "tiled", "sampled"])
def test_each_level_is_asked_for_what_the_one_above_misses(kernel):
    found = cache_traffic(ZEN3, product(), kernel, 1.0)
    assert isinstance(found, Traffic) and found.kernel == kernel
    for above, below in zip(found.levels, found.levels[1:], strict=False):
        assert below.loads + below.stores == above.misses + above.write_backs
    assert [level.name for level in found.levels] == ["L1", "L2", "L3"]
    assert found.bytes_below(found.levels[0]) == 64 * (
        found.levels[0].misses + found.levels[0].write_backs
    )


def test_the_input_gradient_walks_the_transposed_mask():
    op = product("grad_input")
    found = cache_traffic(ZEN3, op, "tiled", 0.0)
    turned = Mask(np.ascontiguousarray(op.mask.array.T))
    levels = (("L1", 64, 8), ("L2", 1024, 8), ("L3", 32768, 16))
    assert found.levels == layer_counts("tiled", turned, 64, levels).levels


@pytest.mark.parametrize(
    ("device", "kernel", "op", "why"),
    [
        ("wafer", "tiled", product(), "no processor"),
        ("zen3", "dense", product(), "no trace"),
        ("zen3", "tiled", product().with_mask(None), "dense"),
        ("zen3", "tiled", product(m=10_000_000), "at most"),
    ],
)
def test_what_is_not_simulated_says_why(device, kernel, op, why):
    assert why in cache_traffic(load_device(device), op, kernel, 0.0)
