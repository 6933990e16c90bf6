"""Text classification: tables of the user's, snippets of the library, the network, a run."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from hwsim.errors import InputError
from sparse_train.data.labelled_text import load_labelled, read_table, snippets
from sparse_train.data.text import SPLITS, STDLIB, Corpus, Document
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.trainer import train

WORDS = {
    "good": ("fine", "great", "lovely", "warm"), "bad": ("poor", "dull", "broken", "cold"),
}  # fmt: skip


def rows(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (label, " ".join(rng.choice([*WORDS[label], "the", "a", "thing", "is"], 8)) + f" {i}")
        for i in range(n)
        for label in WORDS
    ]


def write_tsv(path, content=None):
    lines = ["label\ttext", *("\t".join(row) for row in content or rows())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_tsv(tmp_path_factory.mktemp("table") / "reviews.tsv")


@pytest.fixture(scope="module")
def prepared(table):
    options = {"text": table, "vocabulary_size": 300, "tokens": 16}
    return make_task("text_classification", options).prepare()


def test_csv_and_tsv_gzipped_or_not_are_the_same_texts(tmp_path, table):
    quoted = "\n".join(['"text","label"', *(f'"{text}",{label}' for label, text in rows())])
    (tmp_path / "r.csv").write_text(quoted, encoding="utf-8")
    with gzip.open(tmp_path / "r.csv.gz", "wt") as file:
        file.write(quoted)
    digests = {load_labelled(p).digest for p in
               (table, str(tmp_path / "r.csv"), str(tmp_path / "r.csv.gz"))}  # fmt: skip
    assert len(digests) == 1


def test_quotes_may_hold_commas_line_ends_and_quotes():
    found = read_table('a,b\n"x, ""y""\nz",2\n', "t.csv", "here")
    assert found == [["a", "b"], ['x, "y"\nz', "2"]]


def test_splits_share_no_text_and_hold_every_row_once(table):
    data, wanted = load_labelled(table), set(rows())
    texts = [text for name in SPLITS for text in data.parts[name][0]]
    assert sorted(texts) == sorted({text for _, text in wanted})
    for name in SPLITS:
        for text, label in zip(*data.parts[name], strict=True):
            assert (data.classes[label], text) in wanted


def test_texts_that_differ_in_case_and_punctuation_are_in_one_split(tmp_path):
    several = [(label, text) for label, one in rows() for text in (one, one.upper() + "!")]
    data = load_labelled(write_tsv(tmp_path / "t.tsv", several))
    split = {text: name for name in SPLITS for text in data.parts[name][0]}
    assert all(split[text] == split[text.upper() + "!"] for _, text in rows())


def test_rare_classes_empty_texts_and_repeated_rows_are_left_out_and_counted(tmp_path):
    extra = [("rare", "only one"), ("good", " "), rows()[0]]
    data = load_labelled(write_tsv(tmp_path / "t.tsv", [*rows(), *extra]))
    assert data.classes == ("bad", "good")
    assert data.n_left_out == 3


def test_columns_of_other_names_are_named_by_options(tmp_path):
    lines = ["id\tKind\tWords", *(f"{i}\t{r[0]}\t{r[1]}" for i, r in enumerate(rows()))]
    path = tmp_path / "t.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"columns are id, Kind, Words.*label_column"):
        load_labelled(str(path))
    data = load_labelled(str(path), label_column="Kind", text_column="Words")
    assert data.classes == ("bad", "good")
    with pytest.raises(InputError, match=r"label_column.*unknown column 'kind'.*Kind"):
        load_labelled(str(path), label_column="kind", text_column="Words")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"label,text\na,b\nc", "row 3 has 1 fields"),
        ("t.csv", b'label,text\na,"b', "not a CSV table"),
        ("t.csv", b"label,text\na,\xff", "not UTF-8 at byte 13"),
        ("t.csv", b"label,text\na,\0", "zero byte"),
        ("t.tsv", b"label\ttext\na\tb\tc", "row 2 has 3 fields"),
        ("t.csv", b"label,text\na,b", "0 classes"),
        ("t.csv.gz", gzip.compress(b"label,text\n" * 99, mtime=0)[:-8], "not a whole gzip file"),
    ],
)
def test_broken_tables_say_what_is_wrong_and_where(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_labelled(str(path))
    assert str(path) in str(caught.value)


def test_missing_table_says_what_is_wanted():
    with pytest.raises(InputError, match=r"no such file; wanted is a CSV or TSV file"):
        load_labelled("nowhere.csv")


def library(packages=3, files=8):
    rng = np.random.default_rng(0)
    return Corpus(STDLIB, tuple(
        Document(f"p{i}/m{j}.py", "\n".join(f"p{i} m{j} line {k} " + "x" * int(rng.integers(20, 60))
                                            for k in range(100)))
        for i in range(packages) for j in range(files)
    ))  # fmt: skip


def test_a_file_of_the_library_is_in_one_split_and_every_class_in_all(monkeypatch):
    from sparse_train.data import labelled_text

    monkeypatch.setattr(labelled_text, "load_corpus", lambda *_, **__: library())
    data = load_labelled(classes=3)
    files = {n: {tuple(t.split()[:2]) for t in data.parts[n][0]} for n in SPLITS}
    assert not files["train"] & files["test"]
    assert not files["train"] & files["validation"]
    assert not files["validation"] & files["test"]
    for name in SPLITS:
        texts, labels = data.parts[name]
        assert set(labels) == {0, 1, 2}
        assert all(text.startswith(data.classes[i]) for text, i in zip(texts, labels, strict=True))
    with pytest.raises(InputError, match="classes: value is 4; allowed is 2 to 3"):
        load_labelled(classes=4)


def test_snippets_are_whole_lines_in_order_and_none_twice():
    lines = [f"line {i} " + "y" * (i % 90) for i in range(200)]
    found = snippets("\n\n".join(lines))
    joined = "\n".join(found).split("\n")
    assert joined == [line.rstrip() for line in lines][: len(joined)]
    assert all(len(one.replace("\n", "")) >= 180 for one in found)


def test_batch_depends_on_seed_and_step_alone_and_an_epoch_shows_all(prepared):
    later = prepared.batch(30, 16, 1)
    prepared.batch(1, 16, 4)
    assert all(torch.equal(later[k], prepared.batch(30, 16, 1)[k]) for k in later)
    n = len(prepared.data.parts["train"][0])
    steps = n // 16
    seen = torch.cat([prepared.batch(s, 16, 0)["input_ids"] for s in range(1, steps + 1)])
    assert len({row.numpy().tobytes() for row in seen}) > 0.95 * steps * 16


def test_padding_changes_no_answer(prepared):
    torch.manual_seed(0)
    model = prepared.build_model("text_classifier", "tiny", {}).eval()
    ids = torch.tensor([[7, 8, 9, 0, 0], [7, 8, 9, 55, 66]])
    lengths = torch.tensor([3, 3])
    logits = model(ids, lengths).logits
    assert torch.allclose(logits[0], logits[1], atol=1e-6)
    assert torch.allclose(logits[0], model(ids[:1, :3], lengths[:1]).logits[0], atol=1e-5)


def test_a_sparse_network_learns_to_tell_classes_apart_and_resumes(tmp_path, table):
    config = TrainConfig(
        task="text_classification", task_options={"text": table, "vocabulary_size": 300,
        "tokens": 16}, algorithm="rigl", density=0.3, steps=60, batch_size=16, warmup_steps=5,
        learning_rate=5e-3, update_interval=10, eval_interval=30, test=True, threads=1,
    )  # fmt: skip
    record = train(config, tmp_path / "run")
    assert record.test is not None
    assert record.test["accuracy"] > 0.9
    assert train(config, tmp_path / "run").test == record.test


def test_a_narrowed_network_is_a_network(prepared):
    options = prepared.narrowed("text_classifier", "small", {}, 0.4)
    sizes = [
        sum(p.numel() for p in prepared.build_model("text_classifier", "small", o).parameters())
        for o in ({}, options)
    ]
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": ""}, "stdlib"),
        ({"classes": 1}, "at least 2"),
        ({"vocabulary_size": 100}, "at least 262"),
        ({"tokens": 0}, "at least 1"),
        ({"label_column": 3}, "column's name"),
    ],
)
def test_wrong_settings_name_what_is_allowed(options, words):
    with pytest.raises(InputError, match=words):
        make_task("text_classification", options)


def test_wrong_model_size_batch_or_split_name_what_is_allowed(prepared):
    with pytest.raises(InputError, match="text_classifier"):
        prepared.build_model("bert", "tiny", {})
    with pytest.raises(InputError, match="classes is 3; task text_classification sets it"):
        prepared.build_model("text_classifier", "tiny", {"classes": 3})
    with pytest.raises(InputError, match="divisor of 64"):
        prepared.build_model("text_classifier", "tiny", {"heads": 5})
    with pytest.raises(InputError, match="batch_size: value is 9999"):
        prepared.batch(1, 9999, 0)
    with pytest.raises(InputError, match="validation, test"):
        prepared.evaluation_batches("train")
