"""Files of ratings: MovieLens' forms read right, and refused where they are broken."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train.data.ratings import generated, load_ratings, parse

ROWS = (("7", "x", "5"), ("9", "y", "3.5"), ("7", "y", "1"))
FORMS = {
    "u.data": "\n".join("\t".join((*row, "881250949")) for row in ROWS),
    "ratings.dat": "\n".join("::".join((*row, "881250949")) for row in ROWS) + "\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n"
    + "\n".join(",".join((*row, "881250949")) for row in ROWS),
    "ml.inter": "item_id:token\tuser_id:token\trating:float\n"
    + "\n".join(f"{item}\t{user}\t{rating}" for user, item, rating in ROWS),
}


def check(found):
    assert found.users.tolist() == [0, 1, 0]
    assert found.items.tolist() == [0, 1, 1]
    assert found.ratings.tolist() == [5.0, 3.5, 1.0]
    assert (found.n_users, found.n_items) == (2, 2)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_ratings(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8")
    check(load_ratings(str(tmp_path / name)))
    check(load_ratings(str(tmp_path)))
    with zipfile.ZipFile(tmp_path / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/README", "about")
        archive.writestr(f"ml/{name}", FORMS[name])
    check(load_ratings(str(tmp_path / "ml.zip")))
    with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
        file.write(FORMS[name])
    check(load_ratings(str(tmp_path / f"{name}.gz")))


def test_digest_is_of_the_content_and_not_of_the_place(tmp_path):
    digests = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "u.data"
        path.write_text(FORMS["u.data"], encoding="utf-8")
        digests.add(load_ratings(str(path)).digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("u.data", b"", "is empty"),
        ("u.data", b"1\t2\t3\t4\n1\t2", "line 2 has 2 fields"),
        ("u.data", b"1\t2\tgood\t4", "rating 'good'"),
        ("u.data", b"1\t2\tnan\t4", "rating 'nan'"),
        ("u.data", b"1\t\t3\t4", "item ''"),
        ("u.data", b"1\t2\t3\t\xff4", "not UTF-8 at byte 6"),
        ("u.data", b"1\t2", "line 1 has 2 fields"),
        ("ratings.csv", b"a,b,c\n1,2,3", "line 1 names a, b, c"),
        ("ratings.csv", b"userId,movieId,rating\n", "no rating"),
        ("ratings.zip", b"PK\3\4 cut", "not a whole zip archive"),
        ("u.data.gz", gzip.compress(b"1\t2\t3\t4" * 100, mtime=0)[:-9], "not a whole gzip file"),
    ],
)
def test_broken_files_say_what_is_wrong_and_where(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_ratings(str(path))
    assert str(path) in str(caught.value)


def test_zip_bomb_and_climbing_archive_are_refused(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/u.data", bytes(50_000_000))
    with pytest.raises(InputError, match="would unpack to 50000000"):
        load_ratings(str(bomb))
    climbing = tmp_path / "climbing.zip"
    with zipfile.ZipFile(climbing, "w") as archive:
        archive.writestr("../u.data", FORMS["u.data"])
    with pytest.raises(InputError, match="climbs out"):
        load_ratings(str(climbing))


def test_missing_data_say_where_they_were_looked_for_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETTIME_DATA", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"data/movielens, .*mine/movielens.*ml-100k\.zip"):
        load_ratings("movielens")
    (tmp_path / "mine" / "movielens").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has none of u\.data"):
        load_ratings("movielens")
    (tmp_path / "mine" / "movielens" / "u.data").write_text(FORMS["u.data"], encoding="utf-8")
    check(load_ratings("movielens"))


def test_generated_sample_is_the_same_each_time_and_has_no_pair_twice():
    one, other = generated(30, 50, 10), generated(30, 50, 10)
    assert one.digest == other.digest
    assert len(set(zip(one.users.tolist(), one.items.tolist(), strict=True))) == 300
    assert np.bincount(one.users).tolist() == [10] * 30


@given(st.text(max_size=80))
def test_any_text_is_ratings_or_an_input_error(text):
    for name in ("u.data", "ratings.dat", "ratings.csv"):
        try:
            found = parse(text, name, "here")
        except InputError as error:
            assert str(error).startswith("here: ")
        else:
            assert len(found.users) == len(found.items) == len(found.ratings) > 0
