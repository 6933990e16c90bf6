"""Word vectors: the standard text form, vectors made of a corpus, and what MLM does with them."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
import torch
from _tiny_run import WORDS, tiny

from hwsim.errors import InputError
from sparse_train.data.embeddings import fitted, read_vectors, trained_vectors
from sparse_train.tasks import make_task
from sparse_train.trainer import train

TEXT = "mask 1 2.5 -3\nnew york 0 1e-2 4\nmask 9 9 9\n"


def write_words(path, size=6):
    rng = np.random.default_rng(0)
    lines = [" ".join([w, *map(str, rng.standard_normal(size).round(3))]) for w in WORDS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def prepared_with(text_folder, **options) -> Any:
    return make_task("mlm", {**tiny(text_folder).task_options, **options}).prepare()


@pytest.mark.parametrize("head", ["", "3 3\n"])
def test_glove_and_fasttext_forms_are_read_and_the_first_of_a_word_counts(tmp_path, head):
    path = tmp_path / "v.txt"
    path.write_text(head + TEXT, encoding="utf-8")
    with gzip.open(tmp_path / "v.vec.gz", "wt") as file:
        file.write(head + TEXT)
    for one in (path, tmp_path / "v.vec.gz"):
        found = read_vectors(str(one))
        assert found.words == ("mask", "new york")
        assert found.vectors.tolist() == [[1, 2.5, -3], [0, pytest.approx(0.01), 4]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no vector"),
        (b"2 3\n", "holds no vector"),
        (b"2 2\na 1 2", "has 1 vectors where line 1 says 2"),
        (b"a 1 2\nb 1", "line 2: allowed are a word and 2 numbers"),
        (b"a 1 2\nb 1 x", "line 2: allowed are a word and 2 finite numbers"),
        (b"9" * 5000 + b" 2\na 1 2", "line 1: a count has 5000 digits"),
        (b"2 " + b"9" * 5000 + b"\na 1", "line 1: a count has 5000 digits"),
        (b"a 1 nan", "line 1: allowed are a word and 2 finite"),
        (b"a 1 \xff", "not UTF-8 at byte 4"),
    ],
)
def test_broken_vectors_say_what_is_wrong_and_where(tmp_path, content, words):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_vectors(str(path))
    assert str(path) in str(caught.value)


def test_missing_vectors_say_what_is_wanted():
    with pytest.raises(InputError, match=r"no such file; wanted is a text file.*GloVe"):
        read_vectors("nowhere.txt")


def test_tokens_in_the_same_contexts_get_the_nearest_vectors():
    """Two groups of tokens that never meet: cosines are high within a group, low across."""
    rng = np.random.default_rng(0)
    tokens = np.concatenate([rng.integers(5 * (i % 2), 5 * (i % 2) + 5, 200) for i in range(40)])
    found = trained_vectors(tokens, 10, 2)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[:5, :5].min() > 0.9
    assert abs(cosines[:5, 5:]).max() < 0.3
    assert np.array_equal(found, trained_vectors(tokens, 10, 2))
    with pytest.raises(InputError, match="size: value is 10"):
        trained_vectors(tokens, 10, 10)


@pytest.mark.parametrize("width", [3, 8])
def test_a_start_has_entries_of_bert_s_scale_and_is_the_same_each_time(width):
    rows = np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)
    has = np.arange(400) % 4 > 0
    start = fitted(rows, has, width)
    assert start.shape == (400, width)
    assert 0.015 < start.std() < 0.025
    assert np.array_equal(start, fitted(rows, has, width))


def test_longer_vectors_keep_their_leading_directions():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 9))
    plane -= plane.mean(0)
    start = fitted(plane.astype(np.float32), np.ones(50, bool), 2).astype(float)
    one, other = (m @ m.T for m in (start, plane))
    assert np.allclose(one / one.std(), other / other.std(), atol=1e-4)


def test_known_words_start_from_their_vectors_and_runs_differ_by_digest(tmp_path, text_folder):
    path = write_words(tmp_path / "v.txt", 16)
    plain, given = prepared_with(text_folder), prepared_with(text_folder, embedding=path)
    options = tiny(text_folder).model_options
    weight = given.build_model("bert", "tiny", options).get_parameter("tokens.weight")
    vectors = read_vectors(path)
    n_known = given.describe()["embedding"]["tokens_with_a_vector"]
    assert n_known >= len(WORDS) / 2
    spelled = {given.tokenized.tokenizer.decode([i]).strip(): i for i in range(5, len(weight))}
    known = [(spelled[w], i) for i, w in enumerate(vectors.words) if w in spelled]
    rows = weight[[token for token, _ in known]].detach().double().numpy()
    wanted = vectors.vectors[[i for _, i in known]].astype(float)
    ratio = (rows - rows[0])[1:] / (wanted - wanted[0])[1:]
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-2)  # shifted and scaled, nothing else
    trained = prepared_with(text_folder, embedding="trained")
    assert len({plain.digest, given.digest, trained.digest}) == 3


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_fine_tunes_the_embedding_or_leaves_it_as_it_was(tmp_path, text_folder, frozen):
    options = {"embedding": "trained", "freeze_embedding": frozen}
    config = tiny(text_folder)
    config = tiny(text_folder, task_options={**config.task_options, **options})
    prepared = prepared_with(text_folder, **options)
    start = prepared.build_model("bert", "tiny", config.model_options)
    assert start.get_parameter("tokens.weight").requires_grad is not frozen
    record = train(config, tmp_path / "run")
    from safetensors.torch import load_file

    weights = [load_file(p) for p in (tmp_path / "run").rglob("*.safetensors")]
    after = [w[k] for w in weights for k in w if k.endswith("tokens.weight") and w[k].ndim == 2]
    assert after
    same = [torch.equal(one, start.get_parameter("tokens.weight")) for one in after]
    assert any(same) if frozen else not all(same)
    assert record.steps == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embedding": 3}, "'trained', a path or none"),
        ({"freeze_embedding": True}, "with an embedding"),
        ({"embedding": "trained", "freeze_embedding": "yes"}, "allowed is false"),
    ],
)
def test_wrong_settings_name_what_is_allowed(options, words):
    with pytest.raises(InputError, match=words):
        make_task("mlm", options)
