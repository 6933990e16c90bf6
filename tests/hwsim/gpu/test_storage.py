"""Bytes that sparse kernels keep beside the weights, against what they pack."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from hwsim import Mask, gemm
from hwsim.gpu.storage import stored, total
from sparse_train.patterns import projection

SHAPE = (256, 512)
PHASES = ("forward", "grad_input", "grad_weight")
DENSE = dict.fromkeys(PHASES, "dense")


def _mask(pattern: str, nnz: int) -> np.ndarray:
    scores = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    return projection(pattern).project(scores, nnz)


def _products(mask: np.ndarray, dtype: str = "bfloat16") -> list:
    return [gemm(64, *SHAPE, Mask(mask), phase, dtype)
            for phase in PHASES]  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "pattern", "nnz"),
    [("csr", "unstructured", 9_000), ("gather", "fan_in", 256 * 51),
     ("block", "block:32,32", 16_384), ("v_n_m", "v_n_m:64,2,8", 256 * 128)],
)  # fmt: skip
def test_bytes_are_those_of_the_packed_weight(kernel: str, pattern: str, nnz: int) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton", reason="triton is not installed (the extra 'gpu' has it)")
    mask = _mask(pattern, nnz)
    packed = import_module(f"hwsim.kernels.gpu.{kernel}").KERNEL.pack(
        torch.ones(SHAPE, dtype=torch.bfloat16), torch.from_numpy(mask)
    )
    found = stored(_products(mask), dict.fromkeys(PHASES, kernel))
    assert found.value_bytes == packed.values.nbytes
    assert found.index_bytes == sum(t.nbytes for t in packed.indices.values())
    assert found.sparse == found.sampled == mask.size


def test_two_four_is_nine_sixteenths_each_way() -> None:
    products = _products(_mask("transposable 2:4", SHAPE[0] * SHAPE[1] // 2))
    weight = 2 * SHAPE[0] * SHAPE[1]
    once = stored(products, DENSE | {"forward": "2:4"})
    assert once.value_bytes + once.index_bytes == weight * 9 / 16
    assert once.sparse == 0  # the backward pass reads the weight as it is
    both = stored(products, DENSE | {"forward": "2:4", "grad_input": "2:4"})
    assert both.value_bytes + both.index_bytes == weight * 9 / 8
    assert both.sparse == SHAPE[0] * SHAPE[1] and both.sampled == 0
    assert total([once, both]).value_bytes == once.value_bytes + both.value_bytes


def test_dense_kernels_keep_nothing() -> None:
    assert stored(_products(_mask("unstructured", 60_000)), DENSE) == total([])
