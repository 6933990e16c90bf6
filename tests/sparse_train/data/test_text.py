"""Corpus and vocabulary."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train.data import vocabulary
from sparse_train.data.text import SPLITS, load_corpus, split_of
from sparse_train.data.vocabulary import SEP, tokenize

NAMES = st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=30)


@given(NAMES)
def test_every_name_is_in_exactly_one_split_and_stays_there(names):
    assert {split_of(name) for name in names} <= set(SPLITS)
    assert [split_of(name) for name in names] == [split_of(name) for name in reversed(names)][::-1]


@settings(deadline=None, max_examples=10)
@given(st.sets(st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6})?\.txt", fullmatch=True), min_size=80,
               max_size=120))  # fmt: skip
def test_splits_of_a_folder_are_disjoint_and_complete(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    try:
        corpus = load_corpus(str(folder))
    except InputError as error:
        assert "falls to" in str(error)
        return
    parts = [{d.name for d in corpus.split(s)} for s in SPLITS]
    assert set.union(*parts) == names
    assert sum(map(len, parts)) == len(names)


def test_splits_are_the_same_in_every_process():
    names = [f"package/module{i}.py" for i in range(50)]
    code = f"from sparse_train.data.text import split_of; print([split_of(n) for n in {names}])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == str([split_of(n) for n in names])


def test_stdlib_leaves_tests_out_and_stays_within_its_budget():
    corpus = load_corpus(budget_bytes=300_000)
    assert sum(len(d.text.encode()) for d in corpus.documents) <= 300_000
    folders = {part for d in corpus.documents for part in d.name.split("/")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages"}
    assert any(d.name.startswith("pydoc_data/topics/") for d in corpus.documents)
    assert "pydoc_data/topics.py" not in {d.name for d in corpus.documents}
    assert corpus.describe()["python"].count(".") == 2


def test_digest_follows_content_name_and_nothing_else(text_folder, tmp_path):
    digest = load_corpus(str(text_folder)).digest
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in text_folder.iterdir():
        (copy / file.name).write_text(file.read_text())
    assert load_corpus(str(copy)).digest == digest
    (copy / "000.txt").write_text("another text")
    assert load_corpus(str(copy)).digest != digest


def test_a_single_file_is_cut_into_parts_that_make_up_the_whole(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line number {i} ünd more\n" for i in range(30_000)), encoding="utf-8")
    corpus = load_corpus(str(path))
    assert "".join(d.text for d in corpus.documents) == path.read_text(encoding="utf-8")


def test_files_that_are_no_text_are_skipped_and_counted_in_a_folder(text_folder, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for file in text_folder.iterdir():
        (folder / file.name).write_text(file.read_text())
    (folder / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (folder / "zeros.bin").write_bytes(b"abc\0def")
    corpus = load_corpus(str(folder))
    assert corpus.n_skipped == 2
    assert len(corpus.documents) == 60


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "no text"), (b"\xff\xfe\x00", "not UTF-8"), (b"short", "falls")],
)
def test_unusable_text_is_named(tmp_path, content, words):
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_corpus(str(path))
    assert str(path) in str(caught.value)


def test_vocabulary_is_learnt_on_training_text_alone(text_folder, tmp_path):
    corpus = load_corpus(str(text_folder))
    before = tokenize(corpus, 300, cache=tmp_path).vocabulary_json
    folder = tmp_path / "changed"
    folder.mkdir()
    for document in corpus.documents:
        text = document.text if document.split == "train" else "quite other words " * 50
        (folder / document.name).write_text(text)
    changed = tokenize(load_corpus(str(folder)), 300, cache=tmp_path)
    assert changed.vocabulary_json == before


def test_tokens_decode_to_the_text(text_folder, tmp_path):
    corpus = load_corpus(str(text_folder))
    tokenized = tokenize(corpus, 300, cache=tmp_path)
    for split in SPLITS:
        stream = tokenized.stream(split)
        ends = np.flatnonzero(stream == SEP)
        documents = np.split(stream, ends + 1)[:-1]
        texts = [tokenized.tokenizer.decode(d[:-1].tolist()) for d in documents]
        assert texts == [d.text for d in corpus.split(split)]


def test_special_tokens_spelt_in_a_text_are_ordinary_text(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.txt").write_text("[MASK] and [SEP] in words")
    tokenized = tokenize(load_corpus(str(folder)), 300, cache=tmp_path)
    stream = tokenized.stream("train")
    assert vocabulary.MASK not in stream
    assert (stream == SEP).sum() == len(load_corpus(str(folder)).split("train"))


def test_cache_is_used_once_written_and_made_anew_when_broken(text_folder, tmp_path, monkeypatch):
    corpus = load_corpus(str(text_folder))
    first = tokenize(corpus, 300, cache=tmp_path)
    content = first.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(vocabulary, "learn", lambda *_: pytest.fail("learnt again"))
        assert tokenize(corpus, 300, cache=tmp_path).vocabulary_json == first.vocabulary_json
    first.path.write_bytes(content[:100])
    again = tokenize(corpus, 300, cache=tmp_path)
    assert again.path.read_bytes() == content


def test_too_small_a_vocabulary_says_what_is_allowed(text_folder, tmp_path):
    with pytest.raises(InputError, match="261; allowed is at least 262"):
        tokenize(load_corpus(str(text_folder)), 261, cache=tmp_path)


def test_a_flipped_bit_in_the_cache_is_not_trained_on(text_folder, tmp_path):
    corpus = load_corpus(str(text_folder))
    first = tokenize(corpus, 300, cache=tmp_path)
    expected = {split: first.stream(split).tolist() for split in ("train", "validation", "test")}
    whole = first.path.read_bytes()
    for place in (len(whole) // 2, len(whole) - 5, len(whole) - len(whole) // 5):
        data = bytearray(whole)
        data[place] ^= 1
        first.path.write_bytes(data)
        again = tokenize(corpus, 300, cache=tmp_path)
        assert {split: again.stream(split).tolist() for split in expected} == expected
        assert again.vocabulary_json == first.vocabulary_json
