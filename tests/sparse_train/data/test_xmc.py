"""The format of the extreme classification repository, and the sets that need no download."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from hwsim import InputError
from sparse_train.data.xmc_format import Rows, load_xmc, parse, write_xmc
from sparse_train.data.xmc_sources import library_calls, planted

FINE = "2 10 5\n1,4 0:0.5 9:2\n 3:1\n"


def rows_of(rows):
    return [(p.tolist(), v.tolist()) for p, v in map(rows.row, range(len(rows)))]


def test_a_line_is_labels_and_features():
    data = parse(FINE, "x")
    assert (data.n_features, data.n_outputs) == (10, 5)
    assert rows_of(data.labels) == [([1, 4], [1, 1]), ([], [])]
    assert rows_of(data.features) == [([0, 9], [0.5, 2]), ([3], [1])]


def test_a_line_without_labels_may_begin_with_a_feature():
    data = parse("1 3 2\n0:1 2:4\r\n", "x")
    assert rows_of(data.labels) == [([], [])] and rows_of(data.features) == [([0, 2], [1, 4])]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "three numbers"),
        ("2 10\n", "three numbers"),
        ("2 10 x\n", "three numbers"),
        ("0 10 5\n", "allowed are 1 to"),
        ("9999999999 10 5\n", "allowed are 1 to"),
        ("3 10 5\n1 0:1\n", "truncated"),
        ("1 10 5\n1 0:1\n1 0:1\n", "has 2 examples"),
        ("1 10 5\n1 0\n", "line 2"),
        ("1 10 5\n1 0:1:2\n", "line 2"),
        ("1 10 5\n1 0:one\n", "line 2"),
        ("1 10 5\n1,x 0:1\n", "line 2"),
        ("1 10 5\n5 0:1\n", "a label is outside 0 to 4"),
        ("1 10 5\n-1 0:1\n", "a label is outside 0 to 4"),
        ("1 10 5\n1 10:1\n", "a feature is outside 0 to 9"),
        ("1 10 5\n1 0.5:1\n", "no whole number"),
        ("1 10 5\n1 0:1 0:2\n", "twice"),
        ("1 10 5\n1,1 0:1\n", "twice"),
        ("1 10 5\n1 0:nan\n", "not finite"),
        ("1 10 5\n1 0:1e999\n", "not finite"),
        ("1 10 5\n1 __import__('os'):1\n", "line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, says):
    with pytest.raises(InputError, match=says):
        parse(text, "x.txt")


@pytest.fixture(scope="module")
def sample():
    return planted(300, 200, 400)


def test_a_written_file_is_read_as_it_was(sample, tmp_path):
    write_xmc(tmp_path / "x.txt", sample, range(400))
    again = load_xmc(tmp_path / "x.txt")
    for one, two in ((again.features, sample.features), (again.labels, sample.labels)):
        assert np.array_equal(one.starts, two.starts) and np.array_equal(one.places, two.places)
        assert np.array_equal(one.values, two.values)
    together = np.sort(np.concatenate(list(again.splits.values())))
    assert np.array_equal(together, np.arange(400))


def test_folder_and_archive_hold_the_same_set(sample, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_xmc(folder / "set_train.txt", sample, sample.splits["train"])
    write_xmc(folder / "set_test.txt", sample, sample.splits["test"])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"Set/{path.name}")
    one, two = load_xmc(folder), load_xmc(tmp_path / "set.zip")
    assert one.digest == two.digest
    n = len(sample.splits["train"])
    assert len(one.splits["train"]) + len(one.splits["validation"]) == n
    assert one.splits["test"].tolist() == list(range(n, n + len(sample.splits["test"])))


def test_equal_examples_are_in_one_split(tmp_path):
    lines = [f"{i % 3} {i % 30}:1" for i in range(300)]
    (tmp_path / "x.txt").write_text("\n".join(["300 30 3", *lines]) + "\n")
    data = load_xmc(tmp_path / "x.txt")
    kinds = [{int(data.features.row(i)[0][0]) for i in rows} for rows in data.splits.values()]
    assert sum(map(len, kinds)) == 30


def test_parts_that_do_not_fit_are_refused(sample, tmp_path):
    write_xmc(tmp_path / "train.txt", sample, range(300))
    with pytest.raises(InputError, match=r"0 files \*test.txt"):
        load_xmc(tmp_path)
    (tmp_path / "test.txt").write_text(FINE)
    with pytest.raises(InputError, match="n_features is 200 in training and 10 in test"):
        load_xmc(tmp_path)


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"no such file.*manikvarma.org"):
        load_xmc(tmp_path / "eurlex")


def test_padding_keeps_the_largest_values():
    rows = Rows.of([np.array([1, 5, 7]), np.array([2])], [np.array([3.0, 1, 2]), np.array([4.0])])
    places, values = rows.padded(np.array([1, 0]), 2)
    assert places.tolist() == [[2, -1], [1, 7]] and values.tolist() == [[4, 0], [3, 2]]


def test_a_planted_set_is_the_same_each_time_and_its_labels_have_a_tree():
    one, two = planted(500, 300, 2000), planted(500, 300, 2000)
    assert one.digest == two.digest != planted(500, 300, 2000, seed=1).digest
    several = [one.labels.row(i)[0] for i in range(2000) if one.labels.counts[i] > 1]
    near = np.mean([row[0] // 16 == row[1] // 16 for row in several])
    assert near > 0.5  # siblings; 1 in 31 by chance
    lengths = [np.linalg.norm(one.features.row(i)[1]) for i in range(50)]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "noise", "says"),
    [((1, 9, 9), 0.5, "outputs"), ((9, 9, 1), 0.5, "examples"), ((9, 9, 9), 1.0, "noise")],
)
def test_bad_sizes_are_refused(sizes, noise, says):
    with pytest.raises(InputError, match=says):
        planted(*sizes, noise=noise)


@pytest.mark.slow
def test_calls_of_the_library_are_read_from_its_sources_and_kept(cache_home):
    data = library_calls()
    assert data.n_outputs > 1000 and len(data.splits["train"]) > 5000
    assert (data.labels.counts > 0).all() and (data.features.counts > 0).all()
    assert library_calls().digest == data.digest  # the second time from the cache
    assert list((cache_home / "nettime" / "xmc").iterdir())
