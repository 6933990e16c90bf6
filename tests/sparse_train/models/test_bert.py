"""The BERT-like model: shapes, loss, presets, narrowing."""

import pytest
import torch
import torch.nn.functional as F

from hwsim import InputError
from hwsim.workload import PRODUCTS
from sparse_train import models
from sparse_train.models.bert import PRESETS, Bert, BertConfig, example
from sparse_train.workload import workload

torch.set_num_threads(1)
SMALL = BertConfig(vocabulary=61, max_length=16, layers=2, width=16, heads=2, ffn=32)


def batch(length=8):
    rng = torch.Generator().manual_seed(0)
    return {
        "input_ids": torch.randint(0, 61, (3, length), generator=rng),
        "positions": torch.tensor([[0, 5], [2, 3], [7, 1]]),
        "labels": torch.tensor([[4, -100], [9, 60], [0, 1]]),
    }


def test_only_the_asked_positions_pass_the_head():
    torch.manual_seed(0)
    model, given_batch = Bert(SMALL), batch()
    few = model(**given_batch)
    every = model(given_batch["input_ids"])
    assert every.logits.shape == (3, 8, 61)
    assert every.loss is None
    rows = torch.arange(3)[:, None]
    torch.testing.assert_close(few.logits, every.logits[rows, given_batch["positions"]])


def test_the_loss_is_the_mean_cross_entropy_of_what_is_labelled():
    torch.manual_seed(0)
    found = Bert(SMALL)(**batch())
    labels = batch()["labels"]
    scores = found.logits.log_softmax(-1)
    terms = [-scores[i, j, labels[i, j]] for i in range(3) for j in range(2) if labels[i, j] >= 0]
    torch.testing.assert_close(found.loss, torch.stack(terms).mean())


def test_hidden_tokens_change_nothing():
    torch.manual_seed(0)
    model, ids = Bert(SMALL), batch()["input_ids"]
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[:, 6:] = False
    other = ids.clone()
    other[:, 6:] = (other[:, 6:] + 7) % 61
    one, two = (model(x, attention_mask=mask).logits[:, :6] for x in (ids, other))
    torch.testing.assert_close(one, two)


def test_attention_looks_both_ways():
    torch.manual_seed(0)
    model, ids = Bert(SMALL), batch()["input_ids"]
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 61
    assert not torch.allclose(model(ids).logits[:, 0], model(other).logits[:, 0])


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_their_closed_form(tied):
    v, p, d, f, n = 61, 16, 16, 32, 2
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    head = d * d + d + v + (0 if tied else v * d)
    model = Bert(BertConfig(v, p, n, d, 2, f, tied))
    assert sum(x.numel() for x in model.parameters()) == v * d + p * d + n * layer + head + 6 * d
    assert (model.decoder.weight is model.tokens.weight) == tied


def test_one_seed_gives_one_model_that_starts_at_chance():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(Bert(SMALL).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    torch.manual_seed(3)
    model = Bert(SMALL)
    ids = torch.arange(48).view(3, 16)
    loss = F.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten())
    assert abs(float(loss.detach()) - torch.tensor(61.0).log()) < 0.3


def test_base_has_the_layers_and_parameters_of_the_paper():
    with torch.device("meta"):
        model = Bert(BertConfig.preset("base"))
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert sum(".attention." in n or n.endswith(("up", "down")) for n in layers) == 72
    # The published count: two segment embeddings less, one last LayerNorm (pre-LN) more.
    assert sum(p.numel() for p in model.parameters()) == 109_514_298 - 2 * 768 + 2 * 768


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_built_without_memory_and_observed(name):
    model, made = models.build(f"bert-{name}", 2, 16)
    assert all(p.is_meta for p in model.parameters())
    step = workload(model, made)
    config = PRESETS[name]
    per_token = 4 * config.width**2 + 2 * config.width * config.ffn
    predicted = made["labels"].numel()
    head = config.width**2 + config.width * config.vocabulary
    gemms = 2 * (2 * 16 * config.layers * per_token + predicted * head)
    found = sum(op.dense_flops for op in step.phase("forward") if op.kind == "gemm")
    assert found == gemms
    assert {op.name for op in step if op.kind in PRODUCTS and op.weight_shape} == {
        n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "decoder"
    } | {"tokens"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BertConfig.preset("huge"), "unknown bert preset 'huge'.*tiny, mini, small, base"),
        (lambda: BertConfig.preset("tiny", depth=3), "unknown bert size 'depth'"),
        (lambda: BertConfig(layers=0), "layers: value is 0"),
        (lambda: BertConfig(width=10, heads=4), "heads: value is 4"),
        (lambda: Bert(SMALL)(torch.zeros(1, 17, dtype=torch.long)), "17 tokens.*at most 16"),
        (lambda: models.build("bert-huge"), "unknown model 'bert-huge'.*bert-base"),
        (lambda: models.build("bert-tiny", 0), "batch_size: value is 0"),
        (lambda: example(SMALL, 1, 0) and models.build("bert-tiny", 1, 0), "sequence_length"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_example_has_the_paper_s_share_of_predictions():
    made = example(SMALL, 4, 100)
    assert made["labels"].shape == made["positions"].shape == (4, 15)
