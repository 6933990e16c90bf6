"""The suite's cases in Triton's interpreter, and its training step with stand-ins for packing."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed (the extra 'gpu' has it)")

from hwsim import InputError, Mask  # noqa: E402
from hwsim.kernels.gpu.suite.cases import ALLOWED, Built, build, error_of, kernel_of, mask_of  # noqa: E402
from hwsim.kernels.gpu.suite.steps import MaskedLinear, Packers, build_step, encoder, sizes, working  # noqa: E402
from hwsim.kernels.gpu.suite.timer import CudaTimer  # noqa: E402
from hwsim.measured.gpu_suite import GpuCase  # noqa: E402
from hwsim.patterns import pattern  # noqa: E402

PHASES = ("forward", "grad_input", "grad_weight")
# What packing does to a weight's values: nothing.
PLAIN = Packers(lambda w: w, lambda w: (w, w.t().contiguous()), "as they are")
# What ranking by signed value does to them: zeros win over negative weights.
SIGNED = Packers(lambda w: w.clamp(min=0), lambda w: (w.clamp(min=0), w.clamp(min=0).t()), "signed")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kernel", ["csr", "gather", "block", "v_n_m 64", "v_n_m 128"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_triton_case_equals_its_product(kernel, phase, dtype):
    density = 0.25 if kernel.startswith("v_n_m") else 0.3
    case = GpuCase(kernel, phase, 20, 128, 64, dtype, density)
    assert error_of(build(case, "cpu")) <= ALLOWED[dtype]


@pytest.mark.parametrize("phase", PHASES)
def test_a_dense_case_is_its_product(phase):
    case = GpuCase("dense", phase, 7, 5, 3, "float32")
    assert error_of(build(case, "cpu")) <= ALLOWED["float32"]


def test_a_wrong_result_has_a_large_error():
    case = GpuCase("dense", "forward", 7, 5, 3, "float32")
    right = build(case, "cpu")
    wrong = Built(lambda: right.call() + 1.0, right.expected)
    assert error_of(wrong) > ALLOWED["float32"]


@pytest.mark.parametrize(
    ("kernel", "holds"),
    [("2:4", "transposable 2:4"), ("2:4 cutlass", "transposable 2:4"), ("block", "block:64,64"),
     ("gather", "fan_in")],
)  # fmt: skip
def test_masks_of_cases_are_of_their_kernels_pattern(kernel, holds):
    case = GpuCase(kernel, "forward", 8, 128, 256, density=0.5)
    made = mask_of(case, torch.Generator().manual_seed(0), "cpu")
    assert Mask(made.numpy()).satisfies(pattern(holds))
    assert 0.2 < made.float().mean() < 0.8


def test_masks_of_tf32_keep_one_of_two_in_both_directions():
    case = GpuCase("2:4 cutlass", "forward", 8, 128, 256, "tfloat32", 0.5)
    made = Mask(mask_of(case, torch.Generator().manual_seed(0), "cpu").numpy())
    assert made.density == 0.5 and made.satisfies(pattern("transposable 1:2"))


def test_cases_that_cannot_be_built_say_why():
    with pytest.raises(InputError, match="unknown kernel of a case 'csc'"):
        kernel_of("csc")
    with pytest.raises(InputError, match="unknown dtype 'int8'"):
        build(GpuCase("dense", "forward", 8, 8, 8, "int8"), "cpu")
    with pytest.raises(InputError, match="device is cpu; allowed is cuda"):
        build(GpuCase("fused pack", "update", 1, 16, 16), "cpu")
    with pytest.raises(InputError, match="packing is timed for 2:4 forward only"):
        build(GpuCase("csr", "forward", 8, 16, 16, packing=True), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_timer_says_so_in_one_line():
    with pytest.raises(InputError, match="no CUDA device here") as error:
        CudaTimer()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("transposable", [True, False])
def test_a_masked_linears_gradients_are_those_of_the_masked_weight(transposable):
    torch.manual_seed(0)
    mask = torch.rand(8, 12) < 0.5
    layer = MaskedLinear(8, 12, mask, PLAIN, transposable)
    x = torch.randn(5, 12, requires_grad=True)
    layer(x).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    again = x.detach().clone().requires_grad_()
    (again @ (weight * mask).t()).square().sum().backward()
    assert torch.allclose(x.grad, again.grad, atol=1e-5)
    assert torch.allclose(layer.weight.grad, weight.grad, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "2:4", "transposable 2:4"])
def test_a_training_step_runs_and_learns(kind):
    torch.manual_seed(0)
    step = build_step(GpuCase(f"bert-base {kind}", "step", 32, 128, 2, "float32"), "cpu", PLAIN)
    losses = [step().item() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_masks_stay_boolean_and_the_sizes_are_the_models():
    made = encoder(GpuCase("vit-large 2:4", "step", 16, 128, 1, "bfloat16"), "cpu", PLAIN)
    shapes = [tuple(m.weight.shape) for m in made.modules() if isinstance(m, MaskedLinear)]
    assert shapes == [(384, 128), (128, 128), (512, 128), (128, 512)]
    build_step(GpuCase("vit-large 2:4", "step", 16, 128, 1, "bfloat16"), "cpu", PLAIN)()


@pytest.mark.parametrize(
    ("kernel", "density", "v", "m"),
    [("v_n_m 64", 0.25, 64, 8), ("v_n_m 128", 1 / 16, 128, 32), ("v_n_m 64", 0.02, 64, 100)],
)
def test_masks_of_v_n_m_cases_have_their_blocks_and_density(kernel, density, v, m):
    case = GpuCase(kernel, "forward", 8, 256, 800, density=density)
    made = mask_of(case, torch.Generator().manual_seed(0), "cpu")
    mask = Mask(made.numpy())
    assert mask.satisfies(pattern(f"v_n_m:{v},2,{m}"))
    assert mask.density == pytest.approx(density)
    packed = kernel_of(kernel).pack(torch.ones(256, 800), made)
    assert packed.values.shape == (256 // v, v, 4 * 800 // m)


def test_what_is_timed_in_triton_says_so():
    import triton

    timer = object.__new__(CudaTimer)
    for kernel in ("csr", "gather", "block", "v_n_m 64", "v_n_m 128"):
        said = timer.toolchain(GpuCase(kernel, "forward", 8, 16, 16))
        assert said.endswith(f"Triton {triton.__version__}")
    assert timer.toolchain(GpuCase("2:4", "forward", 8, 16, 16)).endswith("cuSPARSELt")


@pytest.mark.parametrize(
    ("name", "says"),
    [("gpt dense", "unknown model of a step 'gpt'"), ("bert-base 1:4", "unknown kind of a step")],
)
def test_an_unknown_step_lists_the_valid_ones(name, says):
    with pytest.raises(InputError, match=says):
        encoder(GpuCase(name, "step", 16, 128, 1), "cpu", PLAIN)


@pytest.mark.parametrize("kind", ["2:4", "transposable 2:4"])
def test_a_way_to_pack_that_loses_weights_is_passed_over(kind):
    case = GpuCase(f"bert-base {kind}", "step", 16, 128, 1, "float32")
    assert working((SIGNED, PLAIN), case, "cpu") is PLAIN
    with pytest.raises(InputError, match=r"off by 0.7.*; allowed is 1e-05"):
        working((SIGNED,), case, "cpu")


def test_a_way_to_pack_that_is_wrong_for_grad_input_alone_is_used_only_where_that_is_dense():
    half = Packers(lambda w: w, lambda w: (w, w.t().clamp(min=0)))
    one_way = GpuCase("bert-base 2:4", "step", 16, 128, 1, "float32")
    assert working((half, PLAIN), one_way, "cpu") is half
    both = GpuCase("bert-base transposable 2:4", "step", 16, 128, 1, "float32")
    assert working((half, PLAIN), both, "cpu") is PLAIN


def test_a_way_to_pack_that_fails_or_gives_nan_is_passed_over():
    def fails(weight):
        raise RuntimeError("no such format")

    for bad in (Packers(fails, fails), Packers(lambda w: w * torch.nan, fails)):
        case = GpuCase("vit-large 2:4", "step", 16, 128, 1, "float32")
        assert working((bad, PLAIN), case, "cpu") is PLAIN
        with pytest.raises(InputError, match="off by inf"):
            working((bad,), case, "cpu")


def test_what_is_checked_is_every_weight_of_a_block():
    made = encoder(GpuCase("bert-base 2:4", "step", 16, 128, 1), "cpu", PLAIN)
    shapes = [tuple(m.weight.shape) for m in made.modules() if isinstance(m, MaskedLinear)]
    assert shapes == list(sizes(128))


def test_masked_layers_need_a_way_to_pack():
    with pytest.raises(InputError, match="packers is None"):
        encoder(GpuCase("bert-base 2:4", "step", 16, 128, 1), "cpu")


def test_a_masked_linear_takes_activations_and_gradients_of_any_strides():
    torch.manual_seed(0)
    seen = []

    def noted(weight):
        return weight, weight.t().contiguous()

    layer = MaskedLinear(8, 12, torch.rand(8, 12) < 0.5, Packers(lambda w: w, noted), True)
    x = torch.randn(12, 5).t().requires_grad_()
    linear = torch.nn.functional.linear
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "linear", lambda a, b: seen.append(a.stride()) or linear(a, b)
        )
        layer(x).backward(torch.ones(8, 5).t())
    assert seen == [(12, 1), (8, 1)]
