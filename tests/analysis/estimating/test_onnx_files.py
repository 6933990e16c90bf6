"""ONNX files as models: an exported torch model prices as the traced one."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from analysis.estimating import subject
from hwsim import InputError, load_device
from sparse_train.workload import workload

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
DEVICES = ("ideal", "wafer", "systolic", "sigma-like", "zen4", "h200", "a100")


class _Encoder(nn.Module):
    def __init__(self, width=256, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(500, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 10)
        for parameter in self.parameters():  # an exporter merges what is equal
            nn.init.normal_(parameter)

    def forward(self, x):
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def _images():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 6 * 6, 10),
    )  # fmt: skip


CASES = {
    "encoder": (_Encoder, lambda: torch.zeros(4, 64, dtype=torch.long)),
    "images": (_images, lambda: torch.zeros(8, 3, 16, 16)),
    "perceptron": (lambda: nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64)),
                   lambda: torch.zeros(32, 64)),
}  # fmt: skip


def _export(model, batch, path, **more):
    fixed = isinstance(model, _Encoder)  # its fast path is for evaluation alone
    mode = torch.onnx.TrainingMode.EVAL if fixed else torch.onnx.TrainingMode.TRAINING
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (batch,), str(path), dynamo=False, training=mode, **more)
    return path


@pytest.mark.parametrize("case", CASES)
def test_an_exported_model_prices_as_the_traced_one(case, tmp_path):
    make, batch = CASES[case]
    model = make()
    path = _export(model, batch(), tmp_path / "m.onnx")
    found = subject.from_onnx(str(path), 1, 1)
    traced = workload(model, batch())
    assert found.weights == sum(p.numel() for p in model.parameters())
    assert sorted(found.step.layers.values()) == sorted(traced.layers.values())
    assert not found.step.unknown and not found.masks
    for phase in ("forward", "grad_input", "grad_weight", "update"):
        ours, theirs = found.step.phase(phase), traced.phase(phase)
        assert ours.dense_flops == pytest.approx(theirs.dense_flops, rel=0.02)
    for name in DEVICES:
        device = load_device(name)
        ratio = device.estimate(found.step).seconds / device.estimate(traced).seconds
        assert ratio == pytest.approx(1.0, abs=0.12), name


def test_zeros_of_weights_are_masks(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
    mask = torch.rand(128, 64) < 0.25
    with torch.no_grad():
        model[0].weight *= mask
    x = torch.zeros(16, 3, 64)  # so that the exporter writes MatMul, whose weight lies turned
    for batch in (x, x[:, 0]):
        found = subject.from_onnx(str(_export(model, batch, tmp_path / "m.onnx")), 1, 1)
        assert len(found.masks) == 1
        (name,) = found.masks
        np.testing.assert_array_equal(found.masks[name].array, mask.numpy())
        assert "Masks are the file's own zeros, in 1 of 2 layers" in found.note


def test_the_command_prices_a_file_under_its_masks_or_random_ones(nettime, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    with torch.no_grad():
        model[0].weight *= torch.rand(128, 64) < 0.25
        model[2].weight *= torch.rand(64, 128) < 0.25
    path = str(_export(model, torch.zeros(16, 64), tmp_path / "m.onnx"))
    own = nettime("estimate", path, "-d", "ideal", "--json").json
    assert own["density"] == pytest.approx(0.25, abs=0.03)
    assert "Read from ONNX" in own["note"]
    drawn = nettime("estimate", path, "-d", "ideal", "--density", "0.5", "--json").json
    assert drawn["density"] == pytest.approx(0.5, abs=0.01)
    half = nettime("estimate", path, "-d", "h200", "--dtype", "bfloat16", "--json")
    assert half.code == 0


def test_open_sizes_are_those_given(tmp_path):
    model = nn.Sequential(nn.Linear(64, 32))
    axes = {"x": {0: "batch", 1: "length"}}
    path = _export(model, torch.zeros(2, 3, 64), tmp_path / "m.onnx", input_names=["x"],
                   dynamic_axes=axes)  # fmt: skip
    step = subject.from_onnx(str(path), 5, 7).step
    assert next(op.m for op in step if op.kind == "gemm") == 35


def test_files_that_cannot_be_priced_say_why(tmp_path, nettime):
    (tmp_path / "text.onnx").write_text("no graph")
    for path, said in (("none.onnx", "No such file"), ("text.onnx", "not an ONNX file")):
        shown = nettime("estimate", str(tmp_path / path))
        assert shown.code == 2 and said in shown.err and len(shown.err.splitlines()) == 1
    relu = _export(nn.ReLU(), torch.zeros(2, 3), tmp_path / "relu.onnx")
    with pytest.raises(InputError, match="no product with a parameter"):
        subject.from_onnx(str(relu), 1, 1)
    with pytest.raises(InputError, match="allowed for ONNX files are float32"):
        subject.from_onnx(str(relu), 1, 1, "amp-bf16")
