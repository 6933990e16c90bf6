"""Who rated what: MovieLens' files, tables of the same columns, and a generated sample."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hwsim.errors import InputError
from sparse_train.data import safe_files

GENERATED = "generated"
MOVIELENS = "movielens"
# In a folder or an archive the first of these is taken; MovieLens calls them so.
_FILES = ("u.data", "ratings.dat", "ratings.csv", "ratings.tsv")
_ENDS = ("u.data", "ratings.dat", "ratings.csv", "ratings.tsv", ".inter")
_ARCHIVES = (".zip", ".whl")
_USER = ("user", "user_id", "userid")
_ITEM = ("item", "item_id", "itemid", "movie", "movie_id", "movieid")
_RATING = ("rating", "score")
_LARGEST_BYTES = 1 << 30
_LARGEST_RATING = 1e30  # a float32
_HOW = (
    "get https://files.grouplens.org/datasets/movielens/ml-100k.zip (or ml-1m, ml-latest-small) "
    "and name the archive, its folder or its file with the option ratings"
)


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order of their file: users, items int64 (n,) from 0, ratings float32 (n,).

    Attributes:
        source: "generated" or the name of the file.
        n_users, n_items: that occur.
    """

    source: str
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray

    @property
    def n_users(self) -> int:
        """Users, with ratings or numbered below one that has."""
        return int(self.users.max()) + 1

    @property
    def n_items(self) -> int:
        """Items, rated or numbered below one that is."""
        return int(self.items.max()) + 1

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of users, items and ratings; 32 hexadecimal digits."""
        hashed = hashlib.blake2b(digest_size=16)
        for array in (self.users, self.items, self.ratings):
            hashed.update(array.tobytes())
        return hashed.hexdigest()


def load_ratings(source: str = GENERATED) -> Ratings:
    """Ratings of a source.

    Args:
        source: "generated"; "movielens", looked for in `data/movielens` under the working directory
            and in NETTIME_DATA; or the path of a file, or of a folder, zip archive or wheel that
            holds one. Known forms: `u.data` (tabs, no header), `ratings.dat` ("::" between
            fields), and CSV or tab-separated tables whose header names user, item and rating, as
            in `ratings.csv`; names with a type behind a colon (`user_id:token`) count as well.

    Raises:
        InputError: nothing there (the error says what is wanted, where it was looked for and how
            to get it), or a file that is broken; a line is named by its number.
    """
    if source == GENERATED:
        return generated()
    places = _places() if source == MOVIELENS else [Path(source).expanduser()]
    for place in places:
        if place.exists():
            return _read(place)
    looked = ", ".join(str(place) for place in places)
    raise InputError(f"ratings {source!r}: not found (looked for {looked}); {_HOW}")


def generated(
    n_users: int = 600, n_items: int = 400, per_user: int = 40, groups: int = 8, seed: int = 0
) -> Ratings:
    """A sample with planted structure: tastes of users meet topics of items.

    User u has tastes t_u, item i topics q_i, both N(0, 1) in `groups` dimensions, and the item a
    popularity b_i ~ N(0, 1). A user rates `per_user` items, drawn without replacement with
    probability ~ exp(t_u · q_i / √groups · 2 + b_i); each rating is 5. No data set is behind it.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, n_users, n_items, groups]))
    tastes = rng.standard_normal((n_users, groups))
    topics = rng.standard_normal((n_items, groups))
    liking = 2 * tastes @ topics.T / np.sqrt(groups) + rng.standard_normal(n_items)
    # The largest of logits with Gumbel noise are a draw without replacement.
    noisy = liking + rng.gumbel(size=liking.shape)
    items = np.argsort(-noisy, axis=1, kind="stable")[:, :per_user].reshape(-1)
    users = np.repeat(np.arange(n_users), per_user)
    return Ratings(GENERATED, users, items.astype(np.int64), np.full(len(users), 5, np.float32))


def _places() -> list[Path]:
    roots = [Path("data")]
    if "NETTIME_DATA" in os.environ:
        roots.append(Path(os.environ["NETTIME_DATA"]))
    return [root / MOVIELENS for root in roots]


def _read(place: Path) -> Ratings:
    if place.is_dir():
        found = [place / name for name in _FILES if (place / name).is_file()]
        found += sorted(place.glob("*.inter")) + sorted(place.glob("*.zip"))
        if not found:
            raise InputError(f"{place}: has none of {', '.join(_FILES)}, *.inter, *.zip; {_HOW}")
        return _read(found[0])
    if place.suffix in _ARCHIVES:
        members = [name for name in safe_files.zip_members(place) if name.endswith(_ENDS)]
        if not members:
            raise InputError(f"{place}: has no file that ends in {', '.join(_ENDS)}")
        content = safe_files.read_member(place, members[0], limit_bytes=_LARGEST_BYTES)
        name, where = members[0], f"{place}: {members[0]}"
    else:
        content = safe_files.read_bytes(place, limit_bytes=_LARGEST_BYTES)
        name, where = place.name.removesuffix(".gz"), str(place)
    return parse(safe_files.decoded(content, where), Path(name).name, where)


def parse(text: str, name: str, where: str) -> Ratings:
    """Ratings of a file's text; its name says the form, `where` what errors call it."""
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{where}: is empty; allowed is one rating a line")
    if name.endswith("ratings.dat"):
        separator, columns, first = "::", (0, 1, 2), 0
    elif name.endswith("u.data"):
        separator, columns, first = "\t", (0, 1, 2), 0
    else:
        separator = "\t" if "\t" in lines[0] else ","
        columns, first = _columns(_cells(lines[0], separator, f"{where}: line 1"), where), 1
    users, items, ratings = _fields(lines, first, separator, columns, where)
    return Ratings(name, _numbered(users), _numbered(items), np.asarray(ratings, np.float32))


def _cells(line: str, separator: str, where: str) -> list[str]:
    """The fields of a line; those of a CSV table may be quoted and hold commas."""
    if separator != "," or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InputError(f"{where}: broken quotes ({error})") from None


def _columns(header: Sequence[str], where: str) -> tuple[int, int, int]:
    names = [cell.partition(":")[0].strip().strip('"').lower() for cell in header]
    found = []
    for wanted in (_USER, _ITEM, _RATING):
        place = next((i for i, name in enumerate(names) if name in wanted), None)
        if place is None:
            raise InputError(
                f"{where}: line 1 names {', '.join(names)}; wanted is a column called one of "
                f"{', '.join(wanted)}"
            )
        found.append(place)
    return found[0], found[1], found[2]


def _fields(
    lines: Sequence[str], first: int, separator: str, columns: tuple[int, int, int], where: str
) -> tuple[list[str], list[str], list[float]]:
    users, items, ratings = [], [], []
    width = len(_cells(lines[0], separator, f"{where}: line 1"))
    for number, line in enumerate(lines[first:], first + 1):
        cells = _cells(line, separator, f"{where}: line {number}")
        if len(cells) != width or width <= max(columns):
            raise InputError(
                f"{where}: line {number} has {len(cells)} fields; allowed are "
                f"{max(width, max(columns) + 1)}, as in line 1, with {separator!r} between them"
            )
        user, item, rating = (cells[place].strip() for place in columns)
        try:
            value = float(rating)
        except ValueError:
            value = float("nan")
        if not user or not item or not abs(value) <= _LARGEST_RATING:
            raise InputError(
                f"{where}: line {number}: user {user!r}, item {item!r}, rating {rating!r}; "
                "allowed are two names and a number"
            )
        users.append(user)
        items.append(item)
        ratings.append(value)
    if not users:
        raise InputError(f"{where}: has a header and no rating")
    return users, items, ratings


def _numbered(names: Sequence[str]) -> np.ndarray:
    """Numbers from 0 in the order of the names' first appearance."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
