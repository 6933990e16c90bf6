"""The recommendation task: its three sets, its batches, its ranking metrics, sparse tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train.data.ratings import Ratings, generated
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.tasks.recommendation import PreparedRatings, Recommendation, top_metrics
from sparse_train.trainer import train


@pytest.fixture(scope="module")
def small():
    return PreparedRatings(Recommendation(), generated(40, 60, 12, seed=1))


def pairs(prepared, name):
    return set(zip(*(part.tolist() for part in prepared.parts[name]), strict=True))


def test_training_validation_and_test_share_no_pair_and_each_user_is_in_all(small):
    sets = [pairs(small, name) for name in ("train", "validation", "test")]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40 * 12
    for one in sets:
        assert {user for user, _ in one} == set(range(40))


def test_negatives_were_never_taken_in_training_and_positives_were(small):
    taken = pairs(small, "train")
    batch = {name: t.tolist() for name, t in small.batch(1, 500, 0).items()}
    assert set(zip(batch["users"], batch["positives"], strict=True)) <= taken
    assert not set(zip(batch["users"], batch["negatives"], strict=True)) & taken


def test_batch_depends_on_seed_and_step_alone(small):
    later = small.batch(9, 32, 1)
    small.batch(3, 32, 5)
    same = small.batch(9, 32, 1)
    other = small.batch(9, 32, 2)
    assert all(torch.equal(later[name], same[name]) for name in later)
    assert not torch.equal(later["users"], other["users"])


class Oracle(torch.nn.Module):
    """Knows the pairs of one part."""

    def __init__(self, prepared, name):
        super().__init__()
        self.table = torch.zeros(prepared.n_users, prepared.n_items)
        users, items = prepared.parts[name]
        self.table[users, items] = 1.0

    def forward(self, users, positives, negatives):
        from sparse_train.models.factorization import FactorizationOutput

        margins = self.table[users, positives] - self.table[users, negatives]
        return FactorizationOutput(-margins.mean(), margins)

    def scores(self, users):
        return self.table[users].clone()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_who_knows_the_answers_has_recall_and_ndcg_of_one(small, split):
    found = small.evaluate(Oracle(small, split), split)
    assert found == {"loss": -1.0, "recall@20": 1.0, "ndcg@20": 1.0}


def test_what_was_trained_on_is_not_ranked(small):
    """Who scores training pairs highest gains nothing by it: only ties remain."""
    found = small.evaluate(Oracle(small, "train"), "test")
    blind = small.evaluate(Oracle(small, "validation"), "test")
    assert found["recall@20"] == blind["recall@20"] < 0.6


def test_equal_scores_are_ranked_by_chance_not_by_item_number():
    """All users took the items with the smallest numbers; a model without weights cannot know."""
    users = np.repeat(np.arange(200), 10)
    items = np.concatenate([np.arange(10)] * 200)
    rest = np.arange(10, 200)  # each of these once, so that there are as many items
    users = np.concatenate([users, np.repeat(np.arange(190), 1)])
    items = np.concatenate([items, rest])
    ratings = Ratings("made", users, items, np.full(len(users), 5, np.float32))
    prepared = PreparedRatings(Recommendation(), ratings)
    model = prepared.build_model("factorization", "small", {})
    torch.nn.init.zeros_(model.get_parameter("users.weight"))
    assert 0.02 < prepared.evaluate(model)["recall@20"] < 0.25  # chance: 20 of 190


@settings(deadline=None)
@given(st.permutations(list(range(12))), st.sets(st.integers(0, 20), min_size=1, max_size=8))
def test_metrics_lie_between_0_and_1_and_a_hit_moved_up_never_lowers_them(ranked, wanted):
    order, targets = np.array(ranked), np.array(sorted(wanted))
    recall, ndcg = top_metrics(order, targets)
    assert 0 <= recall <= 1
    assert 0 <= ndcg <= 1 + 1e-12
    first = np.array(sorted(ranked, key=lambda item: item not in wanted))
    assert top_metrics(first, targets) >= (recall, ndcg - 1e-12)


def test_metrics_of_a_small_list_by_hand():
    recall, ndcg = top_metrics(np.array([3, 1, 2]), np.array([1, 7]))
    assert recall == 0.5
    assert ndcg == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_low_ratings_and_users_with_few_items_are_left_out():
    users = np.array([0] * 30 + [1] * 3 + [2] * 6)
    items = np.concatenate([np.arange(30), [0, 1, 2], np.arange(6)])
    values = np.array([5] * 30 + [5] * 3 + [4] * 5 + [3], np.float32)
    ratings = Ratings("made", users, np.append(items[:-1], 31), values)
    prepared = PreparedRatings.__new__(PreparedRatings)
    with pytest.raises(InputError, match="30 items, of which a user took 30"):
        prepared.__init__(Recommendation(), ratings)
    with pytest.raises(InputError, match="no user rated 5 items"):
        PreparedRatings(Recommendation(least_rating=6), ratings)


@pytest.mark.parametrize("algorithm", ["static", "set", "rigl", "srigl"])
def test_tables_keep_the_parameter_budget_and_learn(tmp_path, algorithm):
    record = train(
        TrainConfig(
            task="recommendation", algorithm=algorithm, density=0.25, steps=200, batch_size=512,
            learning_rate=3e-2, warmup_steps=10, update_interval=20, eval_interval=200, test=True,
            threads=1,
        ),
        tmp_path,
    )  # fmt: skip
    masks = record.masks(-1)
    assert set(masks) == {"users", "items"}
    total = (600 + 399) * 64
    assert sum(m.nnz for m in masks.values()) <= round(0.25 * total)
    assert sum(m.nnz for m in masks.values()) > 0.24 * total
    assert record.test is not None
    assert record.test["ndcg@20"] > 0.06  # chance: 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratings": 3}, "generated"),
        ({"least_rating": "high"}, "a number"),
        ({"least_items": 2}, "at least 3"),
        ({"rating": "x"}, "least_rating"),
    ],
)
def test_wrong_settings_name_what_is_allowed(options, words):
    with pytest.raises(InputError, match=words):
        make_task("recommendation", options)


def test_wrong_model_option_or_split_name_what_is_allowed(small):
    with pytest.raises(InputError, match="factorization"):
        small.build_model("mlp", "small", {})
    with pytest.raises(InputError, match="medium"):
        small.build_model("factorization", "huge", {})
    with pytest.raises(InputError, match="width"):
        small.build_model("factorization", "small", {"wide": 3})
    with pytest.raises(InputError, match="width: value is 0"):
        small.build_model("factorization", "small", {"width": 0})
    with pytest.raises(InputError, match="validation, test"):
        small.evaluation_batches("train")
