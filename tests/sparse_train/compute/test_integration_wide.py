"""Masks beside other libraries and in other processes: Hugging Face, inductor, data workers."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sparse_train import sparsify
from sparse_train.testing import check_invariants, small_model

torch.set_num_threads(1)


@pytest.mark.slow
def test_a_hugging_face_bert_from_a_config_trains_under_masks():
    transformers = pytest.importorskip("transformers", reason="pip install 'nettime[hf]'")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sparsifier = sparsify(model, optimizer, "rigl", 0.2, update_interval=2, total_steps=20)
    # Query, key, value, output and both feed-forward matrices of each layer, and the head's own.
    assert len(sparsifier.layers) == 2 * 6 + 1
    assert not any("embeddings" in name or "decoder" in name for name in sparsifier.layers)
    first = sparsifier.masks()
    tokens = torch.arange(24).reshape(2, 12)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        sparsifier.step()
        check_invariants(sparsifier, optimizer)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert sparsifier.version == 4 and sparsifier.masks() != first
    other = transformers.BertForMaskedLM(config)
    again = sparsify(other, None, "rigl", 0.2)
    other.load_state_dict(model.state_dict())
    assert again.masks() == sparsifier.masks()


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler"
)
def test_a_model_compiled_by_inductor_gives_the_same_masks():
    def run(compiled):
        model = small_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        sparsifier = sparsify(model, optimizer, "rigl", 0.3, update_interval=3, total_steps=40)
        forward = torch.compile(model, backend="inductor") if compiled else model
        for step in range(10):
            torch.manual_seed(step)
            optimizer.zero_grad()
            forward(torch.randn(8, 3, 7)).square().mean().backward()
            optimizer.step()
            sparsifier.step()
            check_invariants(sparsifier, optimizer)
        return model, sparsifier

    plain, one = run(compiled=False)
    compiled, two = run(compiled=True)
    assert one.version == two.version == 3
    assert one.masks() == two.masks()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


class Numbered(Dataset):
    """Examples that depend on their number alone; drawing one draws from the worker's stream."""

    def __len__(self):
        return 96

    def __getitem__(self, number):
        torch.rand(1)
        return torch.randn(3, 7, generator=torch.Generator().manual_seed(number))


def masks_with(workers, algorithm):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = sparsify(model, optimizer, algorithm, 0.3, update_interval=3, total_steps=40)
    order = torch.Generator().manual_seed(1)
    loader = DataLoader(Numbered(), 8, shuffle=True, num_workers=workers, generator=order)
    for batch in loader:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        sparsifier.step()
    return sparsifier.masks(), [p.detach().clone() for p in model.parameters()]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("algorithm", ["rigl", "set"])
def test_one_or_four_data_workers_give_the_same_masks_and_weights_to_the_bit(algorithm):
    (one, weights), (four, others) = (masks_with(n, algorithm) for n in (1, 4))
    assert one == four
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


SCRIPT = """
import json, sys, torch
from sparse_train import sparsify
from sparse_train.algorithms import ALGORITHMS
from sparse_train.testing import OPTIMIZERS, small_model, train_step
torch.set_num_threads(1)
found = {}
for name in ALGORITHMS.names():
    kind = ALGORITHMS.get(name)
    fixed = kind.pattern == "2:4"
    model = small_model()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = sparsify(
        model, optimizer, name, 0.5 if fixed else 0.3,
        distribution="uniform" if fixed else "erk", total_steps=20,
        update_interval=min(2, kind.update_interval), seed=3,
    )
    for step in range(7):
        train_step(model, optimizer, sparsifier, step)
    found[name] = {layer: mask.digest for layer, mask in sparsifier.masks().items()}
print(json.dumps([hash("layer"), found]))
"""


@pytest.mark.slow
def test_processes_with_other_hash_seeds_make_the_same_masks_with_every_algorithm():
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    (salt, one), (other_salt, two) = (json.loads(p.communicate()[0]) for p in started)
    assert salt != other_salt
    assert one == two


def test_a_whole_transformer_layer_is_covered_without_its_norms():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    sparsifier = sparsify(layer, None, "static", 0.3, layers="all")
    assert set(sparsifier.layers) == {
        "self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2",
    }  # fmt: skip
    check_invariants(sparsifier, torch.optim.SGD(layer.parameters(), 0.1))
