"""Kernels on the masks of a run: what is timed, and what its page says."""

import numpy as np
import pytest

from analysis import results
from analysis.measuring.learnt import TimedLayer, time_runs
from analysis.measuring.page import KernelsPage, cells, groups
from hwsim import InputError
from sparse_train import trainer
from sparse_train.runs.config import TrainConfig


def config(**changes):
    return TrainConfig(**{
        "task": "images", "task_options": {"data": "digits"}, "model": "mlp", "preset": "small",
        "algorithm": "srigl", "density": 0.2, "steps": 4, "update_interval": 2, "batch_size": 8,
        "warmup_steps": 0, "threads": 1, **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "srigl"
    trainer.train(config(), folder)
    return folder


@pytest.fixture(scope="module")
def rows(run):
    return time_runs([run], (1, 3), rounds=2)


def test_every_masked_layer_is_timed_under_its_last_mask_and_a_drawn_one(run, rows):
    from sparse_train.record import TrainingRecord

    masks = TrainingRecord.load(run).masks(-1)
    assert {row.layer for row in rows} == set(masks)
    for row in rows:
        mask = masks[row.layer]
        assert (row.shape, row.nnz) == (mask.shape, mask.nnz)
        if not row.drawn:
            counts = np.asarray(mask.array).sum(1)
            assert (row.empty, row.widest) == ((counts == 0).sum(), counts.max())
    assert len(rows) == 2 * 2 * len(masks)


def test_single_samples_and_batches_have_kernels_of_their_own(rows):
    libraries = {"dense numpy", "dense torch", "csr scipy", "csr torch"}
    for row in rows:
        own = {"gather", "lookup"} if row.batch == 1 else {"tiled"}
        assert libraries <= set(row.seconds) and set(row.seconds) - libraries <= own
        assert all(seconds > 0 for seconds in row.seconds.values())


SECONDS = {"dense numpy": 8.0, "dense torch": 6.0, "csr scipy": 4.0, "csr torch": 5.0}


def timed(own, drawn=False, **changes):
    given = {
        "run": "a",
        "algorithm": "srigl",
        "layer": "up",
        "shape": (10, 10),
        "nnz": 10,
        "empty": 2,
        "widest": 2,
        "batch": 1,
        "seconds": {**SECONDS, **own},
        "steady": True,
    }
    return TimedLayer(**{**given, "drawn": drawn, **changes})  # fmt: skip


def test_ratios_are_over_the_faster_library():
    row = timed({"gather": 3.0, "lookup": 2.0})
    assert (row.best, row.over_dense, row.over_csr) == ("lookup", 3.0, 2.0)


def test_a_group_is_a_geometric_mean_with_least_and_most():
    rows = [timed({"gather": 1.0}), timed({"gather": 4.0}), timed({"gather": 2.0}, drawn=True)]
    (group,) = groups(rows)
    line = cells(group)
    assert line[:5] == ["srigl 10 %", "1", "2", "20 %", "2.0"]
    assert line[6:] == ["3.0 (1.5–6.0)", "2.0 (1.0–4.0)", "3.0 (3.0–3.0)", "2.0 (2.0–2.0)"]


def test_the_page_comes_again_from_its_table(rows, tmp_path):
    stored = KernelsPage(
        tuple(rows), "A title", "nettime measure cpu …", "a machine", ("A remark.",)
    )
    page = tmp_path / "page.md"
    page.write_text(stored.page)
    results.beside(page).write_text(results.dumps(stored))
    assert results.disagreements(tmp_path) == ([], [])
    assert "A remark." in stored.page and "On a machine." in stored.page


def test_runs_without_masks_are_refused(tmp_path):
    trainer.train(config(algorithm="dense", density=1.0, steps=1), tmp_path / "dense")
    with pytest.raises(InputError, match="has no masks"):
        time_runs([tmp_path / "dense"], (1,))


def test_the_command(nettime, run, tmp_path):
    page = tmp_path / "page.md"
    shown = nettime("measure", "cpu", "--run", run, "--batch", 2, "--rounds", 1, "--write", page)
    assert shown.code == 0, shown.err
    assert "srigl 20 %" in shown.out and "tiled" in shown.out and page.is_file()
    assert nettime("results", tmp_path).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("cpu",), "--run"), (("gpu", "--run", "x"), "measure cpu"), (("gpu",), "--out"),
     (("cpu", "--run", "nowhere"), "nowhere")],
)  # fmt: skip
def test_options_of_the_other_kind_are_refused(nettime, arguments, said):
    assert said in nettime("measure", *arguments).error
