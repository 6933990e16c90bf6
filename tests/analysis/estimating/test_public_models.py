"""Models by the names that people have for them; what needs their packages is skipped without."""

import importlib
import importlib.util
from types import SimpleNamespace

import pytest

from analysis.estimating import public_models, subject
from hwsim import InputError
from tests.torchvision_that_fits import torchvision

torchvision()
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
# Name → weights in millions, as its authors have them.
SIZES = {
    "hf:bert-base-uncased": 110, "hf:roberta-large": 355, "hf:gpt2": 124, "hf:opt-1.3b": 1316,
    "hf:Llama-2-7b-hf": 6738, "hf:meta-llama/Meta-Llama-3-8B": 8030, "hf:Qwen2-0.5B": 494,
    "hf:t5-small": 61, "hf:vit-base-patch16-224": 87,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "public"),
    [("hf:gpt2", True), ("timm:resnet50", True), ("bert-base", False), ("hf", False)],
)
def test_what_is_anothers_name(name, public):
    assert public_models.is_public(name) == public


def test_every_known_model_has_a_class_and_a_task():
    assert len(public_models.known()) >= 20
    for name, content in public_models.known().items():
        assert name.count("/") == 1
        assert content["kind"]
        assert content["task"] in ("MaskedLM", "CausalLM", "Seq2SeqLM", "ImageClassification")


@pytest.mark.parametrize("name", ["hf:gpt2", "timm:resnet50", "torchvision:resnet18"])
def test_a_missing_package_is_one_line(monkeypatch, name):
    load = importlib.import_module

    def missing(module, *rest):
        if module.partition(".")[0] in ("transformers", "timm", "torchvision"):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module.partition(".")[0])
        return load(module, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"needs the package \w+; install it with `pip install"):
        subject.named(name, 2, 16)


def test_heads_keep_their_size_when_a_model_is_made_narrower():
    config = SimpleNamespace(
        hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256,
    )  # fmt: skip
    narrow = SimpleNamespace(**vars(config))
    public_models._narrow(narrow, config, 3 / 8)
    assert vars(narrow) == {
        "hidden_size": 12 * 128, "intermediate_size": 5376, "num_attention_heads": 12,
        "num_key_value_heads": 3, "vocab_size": 128256,
    }  # fmt: skip


@needs_transformers
@pytest.mark.parametrize(("name", "millions"), SIZES.items())
def test_models_of_the_hub_have_their_weights_and_arithmetic(name, millions):
    found = subject.named(name, 2, 64)
    assert found.weights / 1e6 == pytest.approx(millions, abs=1)
    assert found.step.unknown_share < 0.01
    label, narrower = found.narrowed(found.step.dense_flops // 2)
    assert label.startswith("width ")
    assert narrower.dense_flops < found.step.dense_flops
    masks = subject.random_masks(found.shapes, 0.5, "2:4", "uniform", 0, found.step.layers)
    assert found.step.with_masks(masks).flops < found.step.dense_flops


@needs_transformers
def test_experts_are_counted_by_the_tokens_they_get():
    step = subject.named("hf:Mixtral-8x7B-v0.1", 2, 64, "bfloat16").step
    # 12.9 G active parameters, 6 operations a token and parameter; attention comes on top.
    assert step.dense_flops == pytest.approx(6 * 12.9e9 * 128, rel=0.08)


@needs_transformers
def test_local_files_are_read_and_nothing_is_downloaded(tmp_path):
    import transformers

    transformers.BertConfig(num_hidden_layers=1, architectures=["BertForMaskedLM"]).save_pretrained(
        tmp_path
    )
    assert subject.named(f"hf:{tmp_path}", 2, 16).shapes
    with pytest.raises(InputError, match=r"nothing is\s+downloaded"):
        subject.named("hf:nobody/nothing", 2, 16)


@needs_timm
def test_models_of_timm_have_their_weights():
    found = subject.named("timm:resnet50", 2, 16)
    assert found.weights / 1e6 == pytest.approx(25.6, abs=0.1)
    # 4.1 G multiply-adds an image forward, a step thrice that, less the images' gradient.
    assert found.step.dense_flops == pytest.approx(2 * 3 * 2 * 4.1e9, rel=0.05)
    with pytest.raises(InputError, match="unknown model 'timm:resnet'"):
        subject.named("timm:resnet", 2, 16)


@needs_torchvision
def test_models_of_torchvision_have_their_weights():
    weights = subject.named("torchvision:resnet18", 2, 16).weights
    assert weights / 1e6 == pytest.approx(11.7, abs=0.1)
