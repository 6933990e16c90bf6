"""GPU kernels in Triton's interpreter against a float64 oracle; torch's kernels where CUDA is."""

import os

import numpy as np
import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed (the extra 'gpu' has it)")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from hwsim import InputError  # noqa: E402
from hwsim.kernels.gpu import GPU_KERNELS  # noqa: E402

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = st.sampled_from(sorted(UNIT, key=str))
TRITON = ("csr", "gather", "block")


def layer(seed, m, n, k, mask, dtype=torch.float32):
    """x (m, k), dy (m, n), weight (n, k) of `dtype`, and the mask as a tensor."""
    g = torch.Generator().manual_seed(seed)
    x, dy = torch.randn(m, k, generator=g), torch.randn(m, n, generator=g)
    weight = torch.randn(n, k, generator=g)
    return x.to(dtype), dy.to(dtype), weight.to(dtype), torch.as_tensor(mask)


def close(found, left, right, dtype, depth):
    """|found − left·right| within γ of float32 sums, and one rounding to `dtype`.

    The interpreter cuts float32 to bfloat16 instead of rounding it: twice the unit. Below the
    smallest normal number the spacing is fixed, and in float16 that is within reach.
    """
    exact = left.double() @ right.double()
    size = left.double().abs() @ right.double().abs()
    gamma = (depth + 4) * UNIT[torch.float32]
    allowed = gamma * size + 2 * UNIT[dtype] * (exact.abs() + gamma * size)
    spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert ((found.double() - exact).abs() <= allowed + spacing).all()


def check_all(kernel, x, dy, weight, mask):
    packed = kernel.pack(weight, mask)
    masked = weight * mask
    assert torch.equal(kernel.unpack(packed.values, packed), masked)
    close(kernel.forward(x, packed), x, masked.t(), x.dtype, x.shape[1])
    close(kernel.grad_input(dy, packed), dy, masked, x.dtype, dy.shape[1])
    gradient = kernel.unpack(kernel.grad_weight(dy, x, packed), packed)
    assert not gradient[~mask].any()
    found = torch.where(mask, gradient, (dy.double().t() @ x.double()).float())
    close(found, dy.t(), x, torch.float32, x.shape[0])


@st.composite
def fan_in_masks(draw):
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    fan_in = draw(st.integers(1, k))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    mask = np.zeros((n, k), bool)
    for row in mask:
        row[rng.choice(k, fan_in, replace=False)] = True
    mask[rng.random(n) < 0.3] = False  # neurons without inputs
    mask[rng.integers(n)] = np.arange(k) < fan_in
    return mask


def test_products_too_small_for_float16_come_within_its_spacing():
    x, dy = torch.full((1, 1), 1.7e-3).half(), torch.full((1, 1), 1.9e-4).half()
    check_all(GPU_KERNELS.get("csr"), x, dy, x.clone(), torch.ones(1, 1, dtype=torch.bool))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 6), st.integers(1, 40),
       st.floats(0, 1), DTYPES)  # fmt: skip
def test_csr_equals_the_oracle_for_any_mask(seed, m, n, k, density, dtype):
    mask = np.random.default_rng(seed).random((n, k)) < density
    check_all(GPU_KERNELS.get("csr"), *layer(seed, m, n, k, mask, dtype))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 70), fan_in_masks(), DTYPES)
def test_gather_equals_the_oracle_for_equal_fan_ins(seed, m, mask, dtype):
    check_all(GPU_KERNELS.get("gather"), *layer(seed, m, *mask.shape, mask, dtype))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 70), st.integers(1, 3), st.integers(1, 4),
       st.sampled_from([16, 32]), st.floats(0, 1), DTYPES)  # fmt: skip
def test_block_equals_the_oracle_for_any_blocks(seed, m, rows, columns, side, density, dtype):
    tiles = np.random.default_rng(seed).random((rows, columns)) < density
    mask = np.kron(tiles, np.ones((side, side))).astype(bool)
    check_all(GPU_KERNELS.get("block"), *layer(seed, m, *mask.shape, mask, dtype))


@pytest.mark.parametrize(
    ("name", "n", "k"), [("csr", 3, 70), ("gather", 3, 70), ("block", 128, 256)]
)
def test_a_long_row_a_large_side_and_many_rows_of_x_are_summed_whole(name, n, k):
    check_all(GPU_KERNELS.get(name), *layer(1, 130, n, k, np.ones((n, k), bool)))


@pytest.mark.parametrize("name", ["csr", "gather"])
def test_nan_in_an_unused_input_stays_out(name):
    mask = np.zeros((3, 5), bool)
    mask[:, [0, 3]] = True
    x, _, weight, mask = layer(2, 4, 3, 5, mask)
    kernel = GPU_KERNELS.get(name)
    clean = kernel.forward(x, kernel.pack(weight, mask))
    x[:, 1] = float("nan")
    assert torch.equal(kernel.forward(x, kernel.pack(weight, mask)), clean)


def test_block_takes_the_largest_side_that_fits():
    kernel, mask = GPU_KERNELS.get("block"), torch.zeros(128, 128, dtype=torch.bool)
    mask[:64, 64:] = True
    assert kernel.pack(torch.ones(128, 128), mask).values.shape == (1, 64, 64)


@pytest.mark.parametrize("name", TRITON)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda k, x, dy, w, m: k.pack(w[0], m[0]), r"shape is \(32,\)"),
        (lambda k, x, dy, w, m: k.pack(w.double(), m), "dtype is torch.float64"),
        (lambda k, x, dy, w, m: k.pack(w, m.float()), "allowed is torch.bool"),
        (lambda k, x, dy, w, m: k.pack(w, m[:16]), r"mask: torch.bool \(16, 32\)"),
        (lambda k, x, dy, w, m: k.pack(w.numpy(), m), "type is ndarray"),
        (lambda k, x, dy, w, m: k.forward(x[:, :8], k.pack(w, m)), r"allowed is \(m, 32\)"),
        (lambda k, x, dy, w, m: k.forward(x[:0], k.pack(w, m)), "m at least 1"),
        (lambda k, x, dy, w, m: k.grad_input(dy.half(), k.pack(w, m)), "as the weight"),
        (lambda k, x, dy, w, m: k.grad_weight(dy[:2], x, k.pack(w, m)), "has 4 rows; allowed is 2"),
    ],
)
def test_bad_shapes_dtypes_and_types_are_named(name, change, says):
    operands = layer(3, 4, 32, 32, np.ones((32, 32), bool))
    with pytest.raises(InputError, match=says):
        change(GPU_KERNELS.get(name), *operands)


def test_masks_that_a_kernel_cannot_hold_are_refused_with_what_was_found():
    weight, mask = torch.ones(32, 32), torch.ones(32, 32, dtype=torch.bool)
    mask[0, 0] = False
    with pytest.raises(InputError, match="fan-ins of active neurons are 31, 32"):
        GPU_KERNELS.get("gather").pack(weight, mask)
    with pytest.raises(InputError, match="fan-ins of active neurons are none"):
        GPU_KERNELS.get("gather").pack(weight, torch.zeros_like(mask))
    with pytest.raises(InputError, match="not made of aligned square blocks"):
        GPU_KERNELS.get("block").pack(weight, mask)


@pytest.mark.parametrize("name", ["dense", "2:4"])
def test_torch_kernels_on_the_cpu_say_that_they_need_cuda(name):
    kernel = GPU_KERNELS.get(name.replace("2:4", "two_four"))
    with pytest.raises(InputError, match=f"device is cpu; {name} runs on cuda only"):
        kernel.pack(torch.ones(32, 64), torch.ones(32, 64, dtype=torch.bool))


def test_an_unknown_kernel_or_backend_lists_the_valid_ones():
    with pytest.raises(InputError, match="block, csr, dense, gather, two_four"):
        GPU_KERNELS.get("csc")
    two_four = type(GPU_KERNELS.get("two_four"))
    with pytest.raises(InputError, match="cusparselt, cutlass"):
        two_four("cublas")


def test_two_four_checks_mask_and_size_before_any_backend_is_asked():
    from hwsim.kernels.gpu.two_four import check_two_four, is_two_four

    good = torch.tensor([True, True, False, False]).repeat(16, 4)
    check_two_four(good, (16, 16), "along the inputs")
    assert is_two_four(good) and not is_two_four(good.t())
    with pytest.raises(InputError, match="16×16; allowed are multiples of 32×64"):
        check_two_four(good, (32, 64), "along the inputs")
    with pytest.raises(InputError, match="not 2:4 along the inputs"):
        check_two_four(torch.ones(16, 16, dtype=torch.bool), (16, 16), "along the inputs")
    with pytest.raises(InputError, match="not 1:2 along the inputs"):
        check_two_four(good, (16, 16), "along the inputs", torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["dense", "two_four"])
def test_torch_kernels_equal_the_oracle_on_cuda(name):
    tile = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    operands = layer(4, 40, 128, 128, np.tile(tile, (32, 32)), torch.float16)
    x, dy, weight, mask = (t.cuda() for t in operands)
    kernel = GPU_KERNELS.get(name)
    packed = kernel.pack(weight, mask)
    close(kernel.forward(x, packed), x, (weight * mask).t(), torch.float16, 128)
    close(kernel.grad_input(dy, packed), dy, weight * mask, torch.float16, 128)
