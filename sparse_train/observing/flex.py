"""Flex attention as one op that computes the blocks its mask leaves, not the whole square."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor

from sparse_train.observing.attention import in_one
from sparse_train.private_torch import FakeTensor

_MODULE = "torch.nn.attention.flex_attention"


@contextlib.contextmanager
def flex_in_one(observer: Any) -> Iterator[None]:
    """Meanwhile `flex_attention` is one op forward and one backward, compiled or not.

    A model that has never imported it has none. Real tensors are left to torch.

    Source: Dong et al. 2024, FlexAttention, section 4: whole blocks are skipped.
    """
    flex = sys.modules.get(_MODULE)
    if flex is None or observer.fake is None:
        yield
        return
    kept = flex.flex_attention_hop, flex._validate_device

    def attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any) -> Any:
        blocks = next((part for part in rest if isinstance(part, tuple)), ())
        options = {"dropout_p": 0.0, "is_causal": False, "pairs": block_pairs(query, key, blocks)}
        out = in_one(observer, options, query, key, value)
        with observer.fake:
            statistics = torch.empty(query.shape[:-1], device=query.device)
        return out, statistics, statistics

    flex.flex_attention_hop = attention  # pyrefly: ignore
    flex._validate_device = lambda *_: None  # pyrefly: ignore
    try:
        yield
    finally:
        flex.flex_attention_hop, flex._validate_device = kept  # pyrefly: ignore


def block_pairs(query: Tensor, key: Tensor, blocks: tuple) -> float:
    """Query and key pairs in the blocks that a block mask has, a head and sample."""
    whole = query.shape[-2] * key.shape[-2]
    first = next((i for i, part in enumerate(blocks) if isinstance(part, Tensor)), None)
    if first is None:
        return whole
    counts = [t for t in (blocks[first], blocks[first + 2]) if t is not None]
    if any(isinstance(t, FakeTensor) or t.is_meta for t in counts):
        return whole
    computed = sum(int(t.sum()) for t in counts) * blocks[-3] * blocks[-2]
    return min(computed / prod(blocks[first].shape[:-1]), whole)
