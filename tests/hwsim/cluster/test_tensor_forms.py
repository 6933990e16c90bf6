"""What tensor parallel shares out of a block, and what attention computes again."""

from __future__ import annotations

import pytest

from hwsim import Op
from hwsim.cluster.forms.tensor import cut
from hwsim.cluster.parts import Part, around_attention, scores_again

ROWS, WIDTH, HEADS = 256, 64, 8
STREAM = ROWS * WIDTH * 2  # bytes of the residual stream in 16 bit


def product(name: str, n: int, k: int) -> Op:
    return Op("gemm", "forward", name, ROWS, n, k, 1, "bfloat16", weight_shape=(n, k))


def passes(name: str, many: float) -> Op:
    return Op("elementwise", "forward", name, activation_bytes=int(many * STREAM))


def scores(name: str) -> Op:
    return Op("attention", "forward", name, ROWS, ROWS, WIDTH // HEADS, HEADS, "bfloat16")


def block() -> Part:
    forward = [
        Op("norm", "forward", "norm_1", ROWS, WIDTH, activation_bytes=2 * STREAM),
        product("qkv", 3 * WIDTH, WIDTH), passes("copy", 2.0), scores("qk"), passes("mask", 6.0),
        Op("softmax", "forward", "softmax", ROWS * HEADS, ROWS), passes("dropped scores", 2.5),
        scores("av"), passes("back", 2.0), product("out", WIDTH, WIDTH),
        passes("dropout and sum", 3.5),
        Op("norm", "forward", "norm_2", ROWS, WIDTH, activation_bytes=2 * STREAM),
        product("up", 4 * WIDTH, WIDTH), passes("gelu", 2.0), product("down", WIDTH, 4 * WIDTH),
        passes("sum", 3.0),
    ]  # fmt: skip
    return Part("b", forward, rows=ROWS, width=WIDTH, heads=HEADS, length=ROWS, itemsize=2)


def bytes_of(part: Part) -> dict[str, int]:
    return {op.name: op.activation_bytes for op in part.forward}


@pytest.mark.parametrize("sequence", [False, True])
def test_heads_and_hidden_units_are_shared_out_and_the_stream_only_with_its_sequence(sequence):
    whole, own = block(), cut(block(), 4, sequence=sequence)
    before, after = bytes_of(whole), bytes_of(own)
    for name in ("copy", "mask", "dropped scores", "back", "gelu"):
        assert after[name] == before[name] // 4, name
    for name in ("norm_1", "dropout and sum", "norm_2", "sum"):
        assert after[name] == (before[name] // 4 if sequence else before[name]), name


def test_scores_are_made_again_with_all_that_lies_between_their_products():
    names = [op.name for op in scores_again(block().forward)]
    assert names == ["qk", "mask", "softmax", "dropped scores", "av"]


def test_ops_without_attention_work_on_no_heads():
    forward = [op for op in block().forward if op.kind != "attention"]
    assert around_attention(forward) == [] and scores_again(forward) == []
    assert around_attention([]) == []
