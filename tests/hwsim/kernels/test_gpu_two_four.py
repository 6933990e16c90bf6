"""2:4 through torch's own class, on the CPU: cuSPARSELt's four calls are replaced by stand-ins.

What a stand-in packs is the dense weight itself. All between those calls is torch's code and ours:
which call is made with what, how the packed operand turns, and what the algorithm's number does.
"""

import pytest

torch = pytest.importorskip("torch")

from torch.sparse import SparseSemiStructuredTensorCUSPARSELT  # noqa: E402

from hwsim.kernels.gpu.suite.cases import (  # noqa: E402
    ALLOWED,
    DEFAULT,
    DTYPES,
    SEARCHED,
    build,
    error_of,
    mask_of,
)
from hwsim.kernels.gpu.suite.steps import Packers, build_step, cusparselt, working  # noqa: E402
from hwsim.kernels.gpu.two_four import TwoFour, fused, is_two_four, search  # noqa: E402
from hwsim.measured.gpu_suite import GpuCase  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")


class Library:
    """Stand-ins for the calls of cuSPARSELt, and what they were asked."""

    found = 3  # the fastest algorithm

    def __init__(self):
        self.algorithms, self.searches, self.wrong_format = [], [], False

    def compress(self, weight):
        assert weight.is_contiguous()
        return weight.clone()

    def tile(self, weight, algorithm="", use_cutlass=True):
        """Greedy over each 4×4 tile, the largest first, at most two in each row and column."""
        assert not use_cutlass
        ranked = weight.abs() if algorithm == "largest_abs_values_greedy" else weight
        tiles = ranked.unfold(0, 4, 4).unfold(1, 4, 4).reshape(-1, 16).float()
        every = torch.arange(len(tiles))
        kept = torch.zeros(len(tiles), 4, 4, dtype=torch.bool)
        for place in tiles.argsort(dim=1, descending=True, stable=True).T:
            row, column = place // 4, place % 4
            free = (kept[every, row].sum(1) < 2) & (kept[every, :, column].sum(1) < 2)
            kept[every, row, column] |= free
        n, k = weight.shape
        kept = kept.reshape(n // 4, k // 4, 4, 4).transpose(1, 2).reshape(n, k)
        pruned = weight * kept
        turned = torch.zeros_like(pruned.t()) if self.wrong_format else pruned.t().contiguous()
        return pruned, None, turned, None, kept.clone()

    def multiply(self, packed, dense, bias=None, transpose_result=False, alg_id=0, **_):
        assert dense.is_contiguous() or dense.t().is_contiguous()  # others it would misread
        self.algorithms.append(alg_id)
        product = packed.view(-1, dense.shape[0]) @ dense
        return product.t().contiguous() if transpose_result else product

    def search(self, packed, dense, transpose_result=False):
        self.searches.append(tuple(dense.shape))
        if self.found is None:
            raise RuntimeError("no algorithm")
        return self.found


@pytest.fixture
def library(monkeypatch):
    made = Library()
    for name, call in (
        ("_cslt_compress", made.compress), ("_sparse_semi_structured_tile", made.tile),
        ("_cslt_sparse_mm", made.multiply), ("_cslt_sparse_mm_search", made.search),
    ):  # fmt: skip
        assert hasattr(torch, name)  # torch has the call that is replaced
        monkeypatch.setattr(torch, name, call)
    monkeypatch.setattr(
        SparseSemiStructuredTensorCUSPARSELT, "_validate_device_dim_dtype_shape", lambda *_: None
    )
    return made


def masked_weight(n=32, k=64):
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(n, k, generator=g).bfloat16()
    return weight * mask_of(GpuCase("2:4", "forward", 1, n, k), g, "cpu")


@pytest.mark.usefixtures("library")
def test_fused_packing_keeps_every_active_value_negative_ones_too():
    weight = masked_weight()
    packed = fused(weight)
    x, dy = torch.randn(8, 64).bfloat16(), torch.randn(8, 32).bfloat16()
    linear = torch.nn.functional.linear
    assert torch.equal(linear(x, packed), x @ weight.t())
    assert torch.equal(linear(dy, packed.t()), dy @ weight)
    signed = SparseSemiStructuredTensorCUSPARSELT.prune_dense_static_sort(weight)
    assert not torch.allclose(linear(x, signed), x @ weight.t(), atol=0.5)


def test_the_algorithm_that_was_found_is_the_one_that_runs_in_both_directions(library):
    packed = fused(masked_weight())
    for operand, rows in ((packed, 8), (packed.t(), 16)):
        assert search(operand, rows)
        torch.nn.functional.linear(torch.randn(rows, operand.shape[1]).bfloat16(), operand)
    assert library.algorithms == [3, 3] and library.searches == [(64, 8), (32, 16)]


def test_where_the_search_fails_the_default_stays(library):
    library.found = None
    packed = TwoFour().compressed(masked_weight())
    assert not search(packed, 8)
    torch.nn.functional.linear(torch.randn(8, 64).bfloat16(), packed)
    assert library.algorithms == [0]


@pytest.mark.parametrize(("found", "note"), [(3, SEARCHED), (None, DEFAULT)])
def test_a_case_with_packing_packs_in_each_call_and_searches_once(
    library, monkeypatch, found, note
):
    library.found = found
    monkeypatch.setattr(TwoFour, "check_device", lambda *_: None)
    case = GpuCase("2:4", "forward", 16, 32, 64, density=0.5, graph=False, packing=True)
    built = build(case, "cpu")
    assert error_of(built) <= ALLOWED["bfloat16"] and built.note == note
    built.call()
    assert len(library.searches) == 1 and library.algorithms == [found or 0] * 2


@pytest.mark.parametrize("phase", ["forward", "grad_input", "grad_weight"])
def test_a_two_four_case_equals_its_product_in_every_phase(library, monkeypatch, phase):
    monkeypatch.setattr(TwoFour, "check_device", lambda *_: None)
    built = build(GpuCase("2:4", phase, 16, 32, 64, density=0.5), "cpu")
    assert error_of(built) <= ALLOWED["bfloat16"]
    assert built.note == ("" if phase == "grad_weight" else SEARCHED)
    assert len(library.searches) == (phase != "grad_weight")


@pytest.mark.parametrize("kind", ["2:4", "transposable 2:4"])
@pytest.mark.parametrize("way", [0, 1])
def test_a_step_learns_the_same_packed_as_unpacked_and_searches_each_size_once(library, kind, way):
    case = GpuCase(f"bert-base {kind}", "step", 16, 64, 2)
    plain = Packers(lambda w: w, lambda w: (w, w.t().contiguous()))
    losses = []
    for packers in (cusparselt(case.m)[way], plain):
        torch.manual_seed(0)
        step = build_step(case, "cpu", packers)
        losses.append([step().item() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    # (n, k) of a block: four sizes, one of them square; turned, two of the others come again.
    assert len(library.searches) == (5 if kind.startswith("transposable") else 4)
    assert set(library.algorithms) == {3}


@pytest.mark.parametrize("wrong", [False, True])
def test_a_fused_packing_of_another_cards_format_gives_way_to_packing_one_by_one(library, wrong):
    library.wrong_format = wrong
    ways = cusparselt(16)
    chosen = working(ways, GpuCase("bert-base transposable 2:4", "step", 16, 64, 1), "cpu")
    assert chosen is ways[int(wrong)]
    assert chosen.name == ("packed one by one" if wrong else "packed at once")
    one_way = working(ways, GpuCase("bert-base 2:4", "step", 16, 64, 1), "cpu")
    assert one_way is ways[0]


@pytest.mark.parametrize(("dtype", "kept"), [("bfloat16", True), ("tfloat32", False)])
def test_what_torch_packs_for_cutlass_is_two_of_four_in_bfloat16_but_one_of_two_in_float32(
    dtype, kept
):
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    g = torch.Generator().manual_seed(0)
    # No zeros among them: torch 2.11 draws some of bfloat16's normal numbers as zero.
    weight = (1 + torch.rand(64, 64, generator=g)).to(DTYPES[dtype])
    for mask_dtype, whole in (("tfloat32", True), ("bfloat16", kept)):
        mask = mask_of(GpuCase("2:4 cutlass", "forward", 1, 64, 64, mask_dtype), g, "cpu")
        values, _ = sparse_semi_structured_from_dense_cutlass(weight * mask)
        assert (int((values != 0).sum()) == int(mask.sum())) == whole
        assert is_two_four(mask, weight.dtype) == is_two_four(mask.t(), weight.dtype) == whole
