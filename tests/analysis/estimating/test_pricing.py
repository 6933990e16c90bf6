"""A step priced under masks of a density: what is drawn, what an update adds, who is told."""

import dataclasses

import numpy as np
import pytest
from hand_made import workload

from analysis.estimating.pricing import Setting, masks_of, narrower_dense, price, told
from analysis.estimating.subject import Subject
from hwsim import load_device

STEP = workload()
SUBJECT = Subject("hand-made", STEP, dict(STEP.layers), sum(n * k for n, k in STEP.layers.values()))
DEVICES = [load_device("ideal"), load_device("wafer")]


def _setting(algorithm="static", interval=0, pattern="unstructured"):
    return Setting(pattern, "uniform", 3, algorithm, interval)


def test_every_layer_has_a_mask_of_the_density_and_devices_come_in_order():
    told = []
    found, sparse = price(SUBJECT, DEVICES, 0.25, _setting(), done=lambda *news: told.append(news))
    assert told == [(1, "ideal"), (2, "wafer")]
    assert [b.device for b in found] == ["ideal", "wafer"]
    assert sparse.masks.keys() == STEP.layers.keys()
    for name, mask in sparse.masks.items():
        assert mask.shape == STEP.layers[name]
        assert mask.density == pytest.approx(0.25, abs=1 / np.prod(mask.shape))
    assert [row.label for row in found[0].rows] == [
        "forward",
        "grad_input",
        "grad_weight",
        "update",
    ]


def test_nothing_to_mask_is_the_dense_step():
    found, sparse = price(Subject("bare", STEP, {}, 0), DEVICES[:1], 0.25, _setting())
    assert sparse == STEP
    assert found[0].total.speed_up == 1.0


@pytest.mark.parametrize(("algorithm", "dense_gradient"), [("rigl", True), ("set", False)])
def test_an_update_every_few_steps_has_its_share(algorithm, dense_gradient):
    (found,), sparse = price(SUBJECT, DEVICES[:1], 0.25, _setting(algorithm, 4))
    ordinary = DEVICES[0].estimate(sparse).seconds
    grown = DEVICES[0].estimate(sparse.growth_step(dense_gradient=dense_gradient)).seconds
    assert grown > ordinary
    assert found.total.sparse.seconds == pytest.approx(0.75 * ordinary + 0.25 * grown)


def test_masks_have_the_shape_that_the_step_has_not_the_tensor():
    shapes = {name: (k, n) for name, (n, k) in STEP.layers.items()}
    turned = Subject("turned", STEP, shapes, 0)
    _, sparse = price(turned, [], 0.25, _setting())
    assert {name: mask.shape for name, mask in sparse.masks.items()} == STEP.layers


def test_a_setting_says_all_that_it_is():
    assert _setting("rigl", 4).described("kind") == {
        "pattern": "unstructured", "distribution": "uniform", "seed": 3, "algorithm": "rigl",
        "update_interval": 4, "by": "kind",
    }  # fmt: skip


def _by_statistics(devices, **more):
    from hwsim.masks.statistical import StatisticalMask

    _, sparse = price(SUBJECT, devices, 0.25, _setting(pattern="2:8"), **more)
    kinds = {isinstance(mask, StatisticalMask) for mask in sparse.masks.values()}
    assert len(kinds) == 1
    assert {name: mask.shape for name, mask in sparse.masks.items()} == STEP.layers
    for mask in sparse.masks.values():
        assert mask.density == pytest.approx(0.25, rel=0.01)
    return kinds.pop()


def test_masks_are_drawn_unless_their_statistics_are_asked_for():
    assert not _by_statistics(DEVICES)
    assert not _by_statistics([])
    assert _by_statistics([], by_statistics=True)
    assert _by_statistics(DEVICES[:1], by_statistics=True)


def test_giants_are_known_by_statistics_where_no_device_asks_for_positions(monkeypatch):
    gpu = load_device("h200")
    assert not _by_statistics([gpu])
    weights = sum(n * k for n, k in STEP.layers.values())
    monkeypatch.setattr("analysis.estimating.subject.SHARED_FROM", weights)
    assert not _by_statistics([gpu])
    monkeypatch.setattr("analysis.estimating.subject.SHARED_FROM", weights - 1)
    assert _by_statistics([gpu])
    assert not _by_statistics([gpu, DEVICES[0]])
    assert not _by_statistics([])


def test_rows_are_grouped_as_asked():
    (found,), _ = price(SUBJECT, DEVICES[:1], 0.25, _setting(), "layer")
    assert {row.label for row in found.rows} >= set(STEP.layers)
    dense = price(Subject("bare", STEP, {}, 0), DEVICES[:1], 0.25, _setting())[0][0]
    assert dense.total.sparse.seconds == pytest.approx(DEVICES[0].estimate(STEP).seconds)


def test_the_sentence_says_what_is_priced_and_which_masks_were_drawn():
    assert told(SUBJECT, _setting()) == "A step of its own batch; masks of seed 3."
    known = dataclasses.replace(SUBJECT, priced="8 images, AdamW")
    assert told(known, _setting()) == "8 images, AdamW; masks of seed 3."


def test_masks_made_beforehand_by_statistics_are_drawn_unless_asked_otherwise():
    from hwsim.masks.statistical import StatisticalMask

    turned = Subject("turned", STEP, {n: (k, m) for n, (m, k) in STEP.layers.items()}, 0)
    drawn = masks_of(turned, DEVICES, 0.25, _setting())
    assert not any(isinstance(mask, StatisticalMask) for mask in drawn.values())
    known = masks_of(turned, DEVICES, 0.25, _setting(), by_statistics=True)
    assert {name: mask.shape for name, mask in known.items()} == STEP.layers


def test_without_updates_a_step_is_an_ordinary_one():
    (found,), sparse = price(SUBJECT, DEVICES[:1], 0.25, _setting("rigl", 0))
    assert found.total.sparse.seconds == pytest.approx(DEVICES[0].estimate(sparse).seconds)


def test_the_narrower_model_is_asked_for_by_the_flops_and_stands_against_dense():
    _, sparse = price(SUBJECT, DEVICES, 0.25, _setting())
    asked, narrow = [], workload(layers=1)

    def narrowed(flops):
        asked.append(flops)
        return "a third", narrow

    subject = dataclasses.replace(SUBJECT, narrowed=narrowed)
    found = narrower_dense(subject, DEVICES, sparse)
    assert asked == [sparse.flops] and list(found) == ["ideal", "wafer"]
    for device in DEVICES:
        part = found[device.name]
        assert part.label == "a third"
        assert part.dense.seconds == device.estimate(STEP).seconds
        assert part.sparse.seconds == device.estimate(narrow).seconds
        assert part.sparse.seconds < part.dense.seconds
    assert narrower_dense(SUBJECT, DEVICES, sparse) == {}
