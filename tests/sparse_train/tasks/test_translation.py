"""Translation: the model, greedy decoding, and the task through the trainer."""

from __future__ import annotations

import pytest
import torch

from hwsim import InputError, load_device
from sparse_train.data.vocabulary import CLS, PAD, SEP
from sparse_train.models.seq2seq import Seq2Seq, Seq2SeqConfig, padding_mask
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.trainer import train

pytest.importorskip("sacrebleu", reason="it scores: pip install 'nettime[tasks]'")
WORDS = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"),
         ("six", "sechs"), ("seven", "sieben"), ("ten", "zehn")]  # fmt: skip
SIZES = {"encoder_layers": 1, "decoder_layers": 1, "width": 32, "heads": 2, "ffn": 64}


def table(path):
    """Every two words in a row, word for word."""
    rows = [f"{a} {c}\t{b} {d}\n" for a, b in WORDS for c, d in WORDS]
    path.write_text("".join(rows))
    return path


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = table(tmp_path_factory.mktemp("text") / "numbers.tsv")
    return {"text": str(path), "vocabulary_size": 290, "tokens": 10, "evaluation_pairs": 20}


@pytest.fixture(scope="module")
def task(options):
    return make_task("translation", options).prepare()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Seq2Seq(Seq2SeqConfig.preset("tiny", vocabulary=50, max_length=12, **SIZES)).eval()


def run(model, source, target, labels=None):
    return model(source, target, padding_mask(source, 0), labels)


def test_a_prediction_looks_at_no_later_token_and_at_no_padding(model):
    torch.manual_seed(1)
    source, target = torch.randint(1, 50, (2, 6)), torch.randint(1, 50, (2, 8))
    whole = run(model, source, target).logits
    torch.testing.assert_close(run(model, source, target[:, :5]).logits, whole[:, :5])
    longer = torch.cat([source, torch.zeros(2, 4, dtype=torch.long)], 1)
    torch.testing.assert_close(run(model, longer, target).logits, whole, rtol=1e-4, atol=1e-5)


def test_padding_is_no_part_of_the_loss(model):
    source, target = torch.randint(1, 50, (2, 6)), torch.randint(1, 50, (2, 4))
    pad = torch.zeros(2, 3, dtype=torch.long)
    short = run(model, source, target, target).loss
    long = run(model, source, torch.cat([target, pad], 1), torch.cat([target, pad], 1)).loss
    torch.testing.assert_close(short, long)


def test_decoding_takes_the_best_token_each_time_and_stops_at_the_end(model):
    source = torch.randint(1, 50, (5, 6))
    free = model.translate(source, 3, -1, 8)  # without an end
    assert free.shape == (5, 8)
    seen = torch.cat([torch.full((5, 1), 3), free[:, :-1]], 1)
    assert torch.equal(run(model, source, seen).logits.argmax(-1), free)
    end = int(free[0, 2])
    stopped = model.translate(source, 3, end, 8)
    for row, whole in zip(stopped.tolist(), free.tolist(), strict=True):
        at = whole.index(end) + 1 if end in whole else 8
        assert row == (whole[:at] + [0] * 8)[: len(row)]


def test_batches_are_pure_padded_and_shifted(task):
    one, two = task.batch(5, 6, 1), task.batch(5, 6, 1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["source_ids"], task.batch(6, 6, 1)["source_ids"])
    for seen, label in zip(one["target_ids"].tolist(), one["labels"].tolist(), strict=True):
        n = label.index(SEP)
        assert seen[0] == CLS and seen[1 : n + 1] == label[:n] and set(label[n + 1 :]) <= {PAD}
    assert {t.shape for n, t in one.items() if n != "source_mask"} == {(6, 10)}
    assert torch.equal(one["source_mask"][:, 0, 0] == 0, one["source_ids"] != PAD)


def test_a_perfect_model_scores_one_hundred(task):
    class Perfect(torch.nn.Module):
        def forward(self, labels, **_):
            return type("Outcome", (), {"loss": torch.tensor(0.5)})

        def translate(self, source, *_):
            batch = next(b for b in task.evaluation_batches()
                         if torch.equal(b["source_ids"], source))  # fmt: skip
            return batch["labels"]

    found = task.evaluate(Perfect())
    assert found["chrf"] == pytest.approx(100) and found["loss"] == pytest.approx(0.5)


def test_preparing_twice_gives_one_digest(task, options):
    assert make_task("translation", options).prepare().digest == task.digest
    other = make_task("translation", {**options, "tokens": 11}).prepare()
    assert other.digest != task.digest


def test_pairs_that_are_too_long_are_counted_and_all_too_long_refused(options):
    short = make_task("translation", {**options, "tokens": 5}).prepare()
    assert 0 < short.n_too_long < len(short.text.split("train"))
    with pytest.raises(InputError, match="tokens: value is 2; none of"):
        make_task("translation", {**options, "tokens": 2}).prepare()


def test_a_sparse_run_is_recorded_and_priced(options, tmp_path):
    record = train(
        TrainConfig(
            task="translation", task_options=options, model_options=SIZES, algorithm="rigl",
            density=0.5, update_interval=5, steps=12, batch_size=8, eval_interval=6, threads=1,
        ),
        tmp_path / "run",
    )  # fmt: skip
    assert {"loss", "bleu", "chrf"} <= set(record.evaluations.columns)
    assert any(".cross.query" in name for name in record.masks(0))
    for name in ("ideal", "a100", "wafer", "zen3", "systolic"):
        assert record.net_time(load_device(name)).seconds[-1] > 0


@pytest.mark.slow
def test_word_for_word_translation_is_learnt(options, tmp_path):
    record = train(
        TrainConfig(
            task="translation", task_options=options, model_options=SIZES, algorithm="set",
            density=0.5, steps=400, batch_size=32, eval_interval=400, learning_rate=5e-3,
            threads=1,
        ),
        tmp_path / "run",
    )  # fmt: skip
    first, last = record.evaluations["chrf"].to_list()
    assert first < 30 and last > 60


@pytest.mark.parametrize(
    ("option", "value"),
    [("text", ""), ("tokens", 1), ("vocabulary_size", 100), ("evaluation_pairs", 0),
     ("max_pairs", 0)],
)  # fmt: skip
def test_bad_options_are_refused(option, value):
    with pytest.raises(InputError, match=option):
        make_task("translation", {option: value})


@pytest.mark.parametrize(
    ("sizes", "says"),
    [({"heads": 3}, "heads"), ({"layers": 2}, "layers"), ({"padding": 4096}, "padding")],
)
def test_bad_sizes_are_refused(sizes, says):
    with pytest.raises(InputError, match=says):
        Seq2SeqConfig.preset("tiny", **sizes)
