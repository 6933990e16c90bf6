"""GPU kernels in Triton's interpreter against a float64 oracle; torch's kernels where CUDA is."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed (the extra 'gpu' has it)")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from hwsim import InputError  # noqa: E402
from hwsim.kernels.gpu import GPU_KERNELS  # noqa: E402

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = st.sampled_from(sorted(UNIT, key=str))
TRITON = ("csr", "gather", "block", "v_n_m")


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


def v_n_m_mask(seed, n, k, v, m, emptied=0.0):
    """Four columns of each v × m block, two of them in each row; of rows but the first, fewer."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((n, k), bool)
    for top in range(0, n, v):
        for left in range(0, k, m):
            columns = left + rng.permutation(min(m, k - left))[:4]
            for row in range(top, min(top + v, n)):
                mask[row, rng.permutation(columns)[:2]] = True
    mask[1:] &= rng.random((n - 1, k)) >= emptied
    return mask


@st.composite
def v_n_m_masks(draw):
    v, m = draw(st.sampled_from([16, 32])), draw(st.sampled_from([8, 10, 16]))
    n, k = draw(st.integers(1, 70)), draw(st.integers(1, 4)) * m + draw(st.integers(0, m - 1))
    return v_n_m_mask(draw(st.integers(0, 999)), n, k, v, m, draw(st.sampled_from([0.0, 0.3, 1.0])))


def legal_mask(name):
    """A mask (32, 32) that a kernel takes."""
    return v_n_m_mask(0, 32, 32, 16, 8) if name == "v_n_m" else np.ones((32, 32), bool)


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


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 130), v_n_m_masks(), DTYPES)
def test_v_n_m_equals_the_oracle_for_blocks_of_any_size_and_fill(seed, m, mask, dtype):
    check_all(GPU_KERNELS.get("v_n_m"), *layer(seed, m, *mask.shape, mask, dtype))


@pytest.mark.parametrize(
    ("n", "k", "v", "m", "side", "slots"),
    [(128, 256, 128, 16, 128, 64), (200, 300, 64, 10, 64, 120), (16, 1024, 16, 8, 16, 512),
     (40, 100, 32, 100, 32, 4), (33, 64, 200, 8, 64, 32)],
)  # fmt: skip
def test_v_n_m_takes_the_largest_blocks_that_the_mask_has_and_sums_all_their_slots(
    n, k, v, m, side, slots
):
    kernel, operands = GPU_KERNELS.get("v_n_m"), layer(1, 70, n, k, v_n_m_mask(1, n, k, v, m))
    packed = kernel.pack(*operands[2:])
    assert packed.values.shape == (-(-n // side), side, slots)
    assert packed.indices["columns"].max() < k
    check_all(kernel, *operands)


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


def test_a_column_that_no_row_of_a_block_uses_is_not_read_by_v_n_m():
    mask = np.zeros((32, 16), bool)
    mask[:8, [0, 1, 9, 10]] = mask[8:16, [2, 3, 9, 10]] = mask[16:, [4, 5, 9, 11]] = True
    x, dy, weight, mask = layer(2, 4, 32, 16, mask)
    kernel = GPU_KERNELS.get("v_n_m")
    packed = kernel.pack(weight, mask)
    assert packed.values.shape[0] == 2
    clean, gradient = kernel.forward(x, packed), kernel.grad_weight(dy, x, packed)
    x[:, [6, 7, 15]] = float("nan")
    assert torch.equal(kernel.forward(x, packed), clean)
    assert torch.equal(kernel.grad_weight(dy, x, packed), gradient)
    x[:, 0] = float("nan")
    assert torch.equal(kernel.forward(x, packed)[:, 16:], clean[:, 16:])


def test_what_the_mask_leaves_out_of_the_four_columns_has_weight_and_gradient_zero():
    mask = v_n_m_mask(3, 20, 24, 16, 8, 0.3)
    x, dy, weight, mask = layer(5, 6, 20, 24, mask)
    weight[~mask] = float("nan")
    kernel = GPU_KERNELS.get("v_n_m")
    packed = kernel.pack(weight, mask)
    gradient = kernel.grad_weight(dy, x, packed)
    left_out = packed.indices["active"] == 0
    assert int((~left_out).sum()) == int(mask.sum())
    assert not packed.values[left_out].any() and not gradient[left_out].any()


def test_other_values_under_the_same_mask_are_packed_as_if_anew():
    kernel, mask = GPU_KERNELS.get("v_n_m"), torch.as_tensor(v_n_m_mask(3, 20, 27, 16, 8, 0.3))
    first, other = torch.randn(2, 20, 27)
    packed = kernel.pack(first, mask)
    again = kernel.repack(other, packed)
    assert torch.equal(again.values, kernel.pack(other, mask).values)
    assert torch.equal(kernel.unpack(again.values, again), other * mask)
    for bad, says in ((other[:19], r"shape is \(19, 27\)"), (other.half(), "as the weight")):
        with pytest.raises(InputError, match=says):
            kernel.repack(bad, packed)


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
    operands = layer(3, 4, 32, 32, legal_mask(name))
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
    for refused in (mask, torch.zeros_like(mask), torch.eye(32, dtype=torch.bool)):
        with pytest.raises(InputError, match=r"32×32 is not V:2:M .*allowed V: 128, 64.* M: 128,"):
            GPU_KERNELS.get("v_n_m").pack(weight, refused)


@pytest.mark.parametrize("name", ["dense", "2:4"])
def test_torch_kernels_on_the_cpu_say_that_they_need_cuda(name):
    kernel = GPU_KERNELS.get(name.replace("2:4", "two_four"))
    with pytest.raises(InputError, match=f"device is cpu; {name} runs on cuda only"):
        kernel.pack(torch.ones(32, 64), torch.ones(32, 64, dtype=torch.bool))


def test_an_unknown_kernel_or_backend_lists_the_valid_ones():
    with pytest.raises(InputError, match="block, csr, dense, gather, two_four, v_n_m"):
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
