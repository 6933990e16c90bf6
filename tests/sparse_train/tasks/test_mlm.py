"""The masked-language task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _tiny_run import tiny

from hwsim.errors import InputError
from sparse_train.data.vocabulary import MASK, SPECIAL_TOKENS, TokenizedCorpus
from sparse_train.tasks import make_task


@pytest.fixture
def prepared(text_folder):
    return make_task("mlm", tiny(text_folder).task_options).prepare()


def small_model(prepared, text_folder):
    torch.manual_seed(0)
    return prepared.build_model("bert", "tiny", tiny(text_folder).model_options)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_batch_depends_on_seed_and_step_alone(prepared, text_folder):
    other = make_task("mlm", tiny(text_folder).task_options).prepare()
    later = prepared.batch(9, 4, seed=1)
    assert same(later, other.batch(9, 4, seed=1))
    assert not same(later, prepared.batch(10, 4, seed=1))
    assert not same(later, prepared.batch(9, 4, seed=2))


def test_hidden_tokens_are_masked_replaced_or_kept_80_10_10(text_folder):
    options = {**tiny(text_folder).task_options, "tokens": 100}
    task = make_task("mlm", options).prepare()
    batch = task.batch(1, 400, seed=0)
    shown = batch["input_ids"].gather(1, batch["positions"])
    assert batch["positions"].shape == (400, 15)
    assert all(len(set(row)) == 15 for row in batch["positions"].tolist())
    masked = float((shown == MASK).float().mean())
    kept = float((shown == batch["labels"]).float().mean())
    assert abs(masked - 0.8) < 0.03  # 6,000 draws: five standard deviations are 0.026
    assert abs(kept - 0.1) < 0.03
    assert int(shown[shown != MASK].min()) >= len(SPECIAL_TOKENS) - 1  # [SEP] may be kept


def test_unhidden_tokens_and_labels_are_the_text(prepared):
    batch = prepared.batch(3, 8, seed=0)
    whole = batch["input_ids"].scatter(1, batch["positions"], batch["labels"]).numpy()
    stream = prepared.tokenized.stream("train")
    windows = np.lib.stride_tricks.sliding_window_view(stream, whole.shape[1])
    assert all((windows == row).all(axis=1).any() for row in whole)


def test_evaluation_is_the_same_each_time_and_leaves_the_model_alone(prepared, text_folder):
    model = small_model(prepared, text_folder).train()
    before = torch.get_rng_state()
    first = prepared.evaluate(model)
    assert prepared.evaluate(model) == first
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_an_untrained_model_guesses_as_from_a_uniform_distribution(prepared, text_folder):
    loss = prepared.evaluate(small_model(prepared, text_folder))["loss"]
    assert abs(loss - np.log(prepared.tokenized.vocabulary_size)) < 0.3


def test_test_text_is_read_only_on_request(text_folder, monkeypatch):
    read = []
    stream = TokenizedCorpus.stream
    monkeypatch.setattr(
        TokenizedCorpus, "stream", lambda self, split: read.append(split) or stream(self, split)
    )
    task = make_task("mlm", tiny(text_folder).task_options).prepare()
    model = small_model(task, text_folder)
    task.batch(1, 4, seed=0)
    task.evaluate(model)
    assert set(read) == {"train", "validation"}
    assert task.evaluate(model, "test") != task.evaluate(model)
    assert "test" in read


def test_digest_follows_the_settings(prepared, text_folder):
    options = tiny(text_folder).task_options
    assert make_task("mlm", options).prepare().digest == prepared.digest
    assert make_task("mlm", {**options, "tokens": 17}).prepare().digest != prepared.digest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": 1}, "tokens: value is 1; allowed is an integer of at least 2"),
        ({"hidden_share": 1.5}, "hidden_share: value is 1.5"),
        ({"windows": 3}, "unknown option of task mlm 'windows'.*evaluation_windows"),
        ({"text": ""}, "text: value is ''"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        make_task("mlm", options)


def test_windows_longer_than_the_text_are_refused(text_folder):
    with pytest.raises(InputError, match="tokens: value is 100000"):
        make_task("mlm", {**tiny(text_folder).task_options, "tokens": 100_000}).prepare()


def test_an_unknown_task_lists_the_valid_ones():
    with pytest.raises(InputError, match="unknown task 'mln'; did you mean 'mlm'"):
        make_task("mln", {})
