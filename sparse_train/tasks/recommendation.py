"""Recommendation: user and item embeddings under masks learn who takes what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train.data.ratings import GENERATED, Ratings, load_ratings
from sparse_train.data.text import SPLITS
from sparse_train.models import factorization, lightgcn
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream

CUT = 20  # of recall@20 and NDCG@20
# First numbers of the keys of random streams, so that no two purposes share one.
_TRAINING, _EVALUATION, _SPLIT, _TIES = 1, 2, 3, 4
_EVALUATION_USERS = 256
_WIDTH = "width"


@dataclass(frozen=True)
class Recommendation(Task):
    """Settings of the recommendation task.

    Attributes:
        ratings: "generated" (a sample with planted structure), "movielens" or a path: see
            `sparse_train.data.ratings.load_ratings`.
        least_rating: an item with at least this rating was taken; lower ratings are left out.
        least_items: users who took fewer are left out.

    Of each user's items a tenth (at least one) is for validation, another for test, the rest for
    training, chosen once for all seeds. The default masks cover both tables and nothing else, so
    that a density is the parameter budget of the whole model, shared among users and items, and
    anew at each update.

    Source: Wang et al. (2024), "Dynamic sparse learning: a novel paradigm for efficient
    recommendation" (WSDM), section 3. Deviation: any algorithm, pattern and distribution of this
    package may move the weights.
    """

    default_model: ClassVar[str] = "factorization"
    default_preset: ClassVar[str] = "small"
    default_layers: ClassVar[tuple[str, ...] | None] = ("users", "items")

    ratings: str = GENERATED
    least_rating: float = 4.0
    least_items: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.ratings, str) or not self.ratings:
            raise InputError(
                f"ratings: value is {self.ratings!r}; allowed is 'generated', 'movielens' or a path"
            )
        least = self.least_rating
        if isinstance(least, bool) or not isinstance(least, (int, float)):
            raise InputError(f"least_rating: value is {least!r}; allowed is a number")
        check_integer("least_items", self.least_items, 3)

    def prepare(self) -> PreparedRatings:
        return PreparedRatings(self, load_ratings(self.ratings))


class PreparedRatings(Prepared):
    """Pairs (user, item) in three parts, and who took what."""

    metric: ClassVar[str] = "ndcg@20"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, settings: Recommendation, ratings: Ratings) -> None:
        self.settings = settings
        self.ratings = ratings
        users, items = _taken(ratings, settings)
        self.n_users, self.n_items = int(users.max()) + 1, int(items.max()) + 1
        self.parts = _split(users, items)
        self._evaluation: dict[str, list[Batch]] = {}

    @cached_property
    def digest(self) -> str:
        settings = {name: v for name, v in asdict(self.settings).items() if name != "ratings"}
        text = json.dumps([settings, self.ratings.digest], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest, "data": self.ratings.source,
            "data_digest": self.ratings.digest, "users": self.n_users, "items": self.n_items,
            "pairs": {name: len(part[0]) for name, part in self.parts.items()},
        }  # fmt: skip

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        sizes = _sizes(model, preset, options)
        if model == "lightgcn":
            return lightgcn.LightGCN(self.n_users, self.n_items, pairs=self.parts["train"], **sizes)
        return factorization.Factorization(self.n_users, self.n_items, **sizes)

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        return _sizes(model, preset, options)[_WIDTH]

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        width = _sizes(model, preset, options)[_WIDTH]
        return {**options, _WIDTH: max(1, round(share * width))}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """users, positives and negatives, (batch,) int64 each.

        Pairs are drawn with replacement; a negative is drawn evenly from the items that its user
        never took in training.
        """
        rng = stream(_TRAINING, seed, step)
        users, items = self.parts["train"]
        chosen = rng.integers(0, len(users), batch_size)
        return self._with_negatives(users[chosen], items[chosen], self._training_keys, rng)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """recall@20, NDCG@20, and the ranking loss on fixed negatives.

        Of each user all items are ranked but those of the parts before (of training for
        validation, of training and validation for test); means are over users. Equal scores, as
        a user without a weight has them, stand in an order drawn once for each user.

        Source: Järvelin and Kekäläinen (2002) for NDCG; recall as in Wang et al. (2019), "Neural
        graph collaborative filtering", section 4.2.1.
        """
        batches = self.evaluation_batches(split)
        was_training = model.training
        model.eval()
        try:
            n = sum(len(batch["users"]) for batch in batches)
            loss = sum(float(model(**batch).loss) * len(batch["users"]) for batch in batches)
            scores: Any = model.scores
            recall, ndcg = self._ranked(
                lambda users: scores(torch.from_numpy(users)).numpy(), split
            )
        finally:
            model.train(was_training)
        return {"loss": loss / n, "recall@20": recall, "ndcg@20": ndcg}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """The items that most users took in training, the same for all."""
        check_split(split)
        counts = np.bincount(self.parts["train"][1], minlength=self.n_items).astype(np.float32)
        recall, ndcg = self._ranked(lambda users: np.tile(counts, (len(users), 1)), split)
        return {"most taken items": {"recall@20": recall, "ndcg@20": ndcg}}

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        place = check_split(split)
        if split not in self._evaluation:
            rng = stream(_EVALUATION, place)
            # Validation knows nothing of the test pairs: some of its negatives may be among them.
            known = self._keys(*SPLITS[: place + 2])
            whole = self._with_negatives(*self.parts[split], known, rng)
            self._evaluation[split] = [whole]
        return self._evaluation[split]

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        outcome = model(**batch)
        return {
            "loss": outcome.loss,
            "auc": (torch.sign(outcome.margins).double().mean() + 1) / 2,
        }

    @cached_property
    def _training_keys(self) -> np.ndarray:
        return self._keys("train")

    def _keys(self, *names: str) -> np.ndarray:
        parts = [self.parts[name] for name in names]
        return np.sort(np.concatenate([u * self.n_items + i for u, i in parts]))

    def _with_negatives(
        self, users: np.ndarray, items: np.ndarray, keys: np.ndarray, rng: np.random.Generator
    ) -> Batch:
        negatives = rng.integers(0, self.n_items, len(users))
        while len(bad := np.flatnonzero(_holds(keys, users * self.n_items + negatives))):
            negatives[bad] = rng.integers(0, self.n_items, len(bad))
        arrays = {"users": users, "positives": items, "negatives": negatives}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def _ranked(
        self, scores_of: Callable[[np.ndarray], np.ndarray], split: str
    ) -> tuple[float, float]:
        """recall@20 and NDCG@20 of scores (users, items) of some users, which it may change."""
        before = ("train",) if split == "validation" else ("train", "validation")
        known = _rows(self.n_users, *(self.parts[name] for name in before))
        wanted = _rows(self.n_users, self.parts[split])
        recall, ndcg = [], []
        for start in range(0, self.n_users, _EVALUATION_USERS):
            users = np.arange(start, min(start + _EVALUATION_USERS, self.n_users))
            scores = scores_of(users)
            for user, row in zip(users, scores, strict=True):
                row[known[user]] = -np.inf
                ties = stream(_TIES, int(user)).permutation(self.n_items)
                order = ties[np.argsort(-row[ties], kind="stable")[:CUT]]
                one = top_metrics(order, wanted[user])
                recall.append(one[0])
                ndcg.append(one[1])
        return float(np.mean(recall)), float(np.mean(ndcg))


def top_metrics(ranked: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Recall and NDCG of a ranked list against the items wanted, of which there is at least one.

    >>> top_metrics(np.array([3, 1, 2]), np.array([1, 7]))[0]
    0.5
    """
    hits = np.isin(ranked, wanted)
    gains = 1 / np.log2(np.arange(2, len(ranked) + 2))
    best = gains[: min(len(wanted), len(ranked))].sum()
    return float(hits.sum() / len(wanted)), float(gains[hits].sum() / best)


def _taken(ratings: Ratings, settings: Recommendation) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of users and items, each once, numbered anew."""
    liked = ratings.ratings >= settings.least_rating
    keys = np.unique(ratings.users[liked] * ratings.n_items + ratings.items[liked])
    users, items = np.divmod(keys, ratings.n_items)
    enough = np.bincount(users, minlength=ratings.n_users) >= settings.least_items
    users, items = users[enough[users]], items[enough[users]]
    if not len(users):
        raise InputError(
            f"ratings {ratings.source}: no user rated {settings.least_items} items with "
            f"{settings.least_rating} or more; allowed is a lower least_items or least_rating"
        )
    users, items = (np.unique(a, return_inverse=True)[1].astype(np.int64) for a in (users, items))
    n_items = int(items.max()) + 1
    most = int(np.bincount(users).max())
    if n_items <= max(most, CUT):
        raise InputError(
            f"ratings {ratings.source}: {n_items} items, of which a user took {most}; allowed are "
            f"more items than any user took, and more than {CUT}"
        )
    return users, items


def _split(users: np.ndarray, items: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    order = np.lexsort((stream(_SPLIT).random(len(users)), users))
    users, items = users[order], items[order]
    counts = np.bincount(users)
    place = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.maximum(1, counts // 10)[users]
    part = np.minimum(place // held, 2)  # 0: validation, 1: test, 2: training
    names = ("validation", "test", "train")
    return {name: (users[part == i], items[part == i]) for i, name in enumerate(names)}


def _rows(n_users: int, *parts: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """The items of each user."""
    users = np.concatenate([part[0] for part in parts])
    items = np.concatenate([part[1] for part in parts])
    order = np.argsort(users, kind="stable")
    return np.split(items[order], np.cumsum(np.bincount(users, minlength=n_users))[:-1])


def _holds(keys: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of `asked` are among sorted keys."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return keys[place] == asked


def _sizes(model: str, preset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a model by name: the preset's, some of them replaced."""
    known: dict[str, dict[str, dict[str, Any]]] = {
        "factorization": {n: {_WIDTH: width} for n, width in factorization.PRESETS.items()},
        "lightgcn": {n: {_WIDTH: w, "layers": k} for n, (w, k) in lightgcn.PRESETS.items()},
    }
    if model not in known:
        raise InputError(unknown("model", model, tuple(known)))
    if preset not in known[model]:
        raise InputError(unknown(f"{model} preset", preset, tuple(known[model])))
    sizes = known[model][preset]
    for name in options:
        if name not in sizes:
            raise InputError(unknown(f"option of model {model}", name, tuple(sizes)))
    return {**sizes, **options}


TASK = Recommendation
