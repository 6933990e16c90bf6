"""Measured steps: their file, their models, prices beside them."""

import json

import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.steps.check import check_steps
from analysis.steps.models import workload_of
from analysis.steps.public import family_of
from analysis.steps.reading import read_steps
from analysis.steps.record import Step, write_steps
from hwsim import InputError, gemm, load_device
from hwsim.workload import Workload

SIZES = {"hidden": 64, "layers": 2, "heads": 4, "vocab": 97}


def decoder(seconds=1e-3, **more):
    return Step("decoder", "a100_80gb", "training", 2, seconds, SIZES, 32, **more)


def test_a_file_gives_back_what_was_written(tmp_path):
    steps = [decoder(), decoder(2e-3, precision="bfloat16", compiled=True, family="decoders")]
    write_steps(tmp_path / "steps.jsonl", steps)
    assert read_steps(tmp_path / "steps.jsonl") == steps


def test_rows_under_a_key_and_single_rows_are_read(tmp_path):
    row = {"model": "decoder", "device": "t4", "mode": "forward", "batch": 1, "seconds": 0.5}
    for content in ({"rows": [row]}, [row], row):
        path = tmp_path / "steps.json"
        path.write_text(json.dumps(content))
        assert [s.seconds for s in read_steps(path)] == [0.5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mode": "train"}, "row 1: unknown mode 'train'"),
        ({"precision": "amp"}, "unknown precision 'amp'"),
        ({"seconds": 0}, "seconds: value is 0; allowed is "),
        ({"batch": 0}, "batch: value is 0"),
        ({"batches": 1}, "unknown key 'batches'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, says):
    row = {"model": "decoder", "device": "t4", "mode": "forward", "batch": 1, "seconds": 0.5}
    path = tmp_path / "steps.json"
    path.write_text(json.dumps([row | change]))
    with pytest.raises(InputError, match=says):
        read_steps(path)


def test_families_hold_what_is_built_alike():
    assert family_of("deit3_base_patch16_224") == family_of("vit_small_patch16_224") == "vit"
    assert family_of("resnext50_32x4d") == family_of("wide_resnet50_2") == "resnet"


def test_a_decoder_is_observed_without_weights():
    forward = workload_of(Step("decoder", "x", "forward", 2, 1.0, SIZES, 32))
    attention = [op for op in forward if op.kind == "attention"]
    assert len(attention) == 2 and all(op.fused for op in attention)
    assert {op.kind for op in workload_of(decoder())} >= {"gemm", "attention", "optimizer", "loss"}


def test_plain_attention_is_products_and_a_softmax():
    plain = Step("decoder", "x", "forward", 2, 1.0, SIZES, 32, attention="plain")
    ops = [op for op in workload_of(plain) if op.kind in ("attention", "softmax")]
    assert [op.kind for op in ops[:6]] == ["attention", "softmax", "attention"] * 2


def test_an_unknown_model_is_named():
    with pytest.raises(InputError, match="unknown model 'perceptron'"):
        workload_of(Step("perceptron", "x", "forward", 1, 1.0))


def test_errors_are_those_of_the_ratios():
    device = load_device("a100_sxm")
    work = Workload((gemm(1024, 1024, 1024, dtype="bfloat16"),))
    price = device.estimate(work).seconds
    steps = [decoder(price / ratio, family=f"f{ratio}") for ratio in (1.1, 0.9, 1.0)]
    found = check_steps(device, steps, lambda _: work)
    assert [r.ratio for r in found.rows] == pytest.approx([1.1, 0.9, 1.0])
    assert found.summary()["error"] == pytest.approx(0.2 / 3)
    assert found.kinds() == {"gemm": pytest.approx(1.0)}
    assert found.worst(1)[0].ratio == pytest.approx(0.9)
    assert found.groups()["family f1.1"]["bias"] == pytest.approx(0.0953, rel=1e-3)


def test_the_command_prices_a_file(tmp_path):
    write_steps(tmp_path / "steps.jsonl", [decoder(), decoder(2e-3)])
    run = CliRunner().invoke(
        app, ["crosscheck", "steps", str(tmp_path / "steps.jsonl"), "-d", "a100_sxm", "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["all"]["steps"] == 2 and found["cards"] == ["a100_80gb"]
    assert len(found["steps"]) == 2
