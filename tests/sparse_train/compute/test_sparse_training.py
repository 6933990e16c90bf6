"""Runs of the trainer on sparse kernels: as on masked dense weights, but for rounding."""

from __future__ import annotations

import pytest
from _tiny_run import tiny

from hwsim import InputError
from sparse_train.compute.sparse_linear import SparseCompute
from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig
from sparse_train.sparsify import Sparsifier
from sparse_train.trainer import train


@pytest.fixture(scope="module", params=["rigl", "set"])
def algorithm(request):
    return request.param


@pytest.fixture(scope="module")
def runs(algorithm, text_folder, tmp_path_factory):
    """(masked, sparse): records of the same run, computed in both ways."""
    folder = tmp_path_factory.mktemp(algorithm)
    return [
        train(tiny(text_folder, algorithm=algorithm, compute=compute), folder / compute)
        for compute in ("masked", "sparse")
    ]


def test_losses_and_norms_are_those_of_masked_weights(runs):
    masked, sparse = runs
    assert masked.training["mask_update"].sum() >= 3
    for column in ("loss", "gradient_norm"):
        assert sparse.training[column].to_list() == pytest.approx(
            masked.training[column].to_list(), rel=1e-4
        )


def test_masks_are_updated_to_the_same_ones(runs):
    masked, sparse = runs
    assert [first for first, _ in masked.mask_versions] == [s for s, _ in sparse.mask_versions]
    last = len(masked.mask_versions) - 1
    assert last >= 3
    assert masked.masks(last) == sparse.masks(last)


def test_the_record_says_which_layers_used_the_kernels(runs):
    masked, sparse = runs
    layers = set(sparse.densities["layer"])
    assert masked.compute == {}
    assert {*sparse.compute["sparse"], *sparse.compute["dense"]} == layers
    assert sparse.compute["sparse"]


def test_evaluations_agree(runs):
    masked, sparse = runs
    assert sparse.measured["value"].to_list() == pytest.approx(
        masked.measured["value"].to_list(), rel=1e-4
    )


def test_exported_weights_are_those_of_the_masked_run(runs):
    masked, sparse = (run_folder.read_checkpoint(record.folder)["model"] for record in runs)
    assert masked.keys() == sparse.keys()
    for name, tensor in masked.items():
        assert sparse[name].numpy() == pytest.approx(tensor.numpy(), rel=1e-2, abs=1e-4), name
    assert (runs[1].folder / "weights.safetensors").stat().st_size > 0


def test_an_interrupted_run_goes_on_to_the_bit(runs, algorithm, text_folder, tmp_path):
    config = tiny(text_folder, algorithm=algorithm, compute="sparse")
    train(config, tmp_path / "run", stop_after=5)
    resumed = train(config, tmp_path / "run")
    columns = ["step", "loss", "gradient_norm"]
    assert resumed.training[columns].equals(runs[1].training[columns])
    assert resumed.measured.equals(runs[1].measured)


def test_the_kernels_are_used_at_all(text_folder, tmp_path, monkeypatch):
    from hwsim.kernels.cpu.tiled import TiledMatrix

    products = []
    usual = TiledMatrix.multiply
    monkeypatch.setattr(TiledMatrix, "multiply", lambda *a: products.append(1) or usual(*a))
    train(tiny(text_folder, steps=3, compute="sparse"), tmp_path / "run")
    assert len(products) >= 3 * 6 * 2  # steps × linear layers × (forward, grad_input)


def test_the_dense_algorithm_has_nothing_to_skip(text_folder, tmp_path):
    dense = {"algorithm": "dense", "density": 1.0, "steps": 3, "compute": "sparse"}
    record = train(tiny(text_folder, **dense), tmp_path / "run")
    assert len(record.training) == 3


def test_an_unknown_way_to_compute_is_named():
    with pytest.raises(InputError, match=r"compute.*fast"):
        TrainConfig(compute="fast")


def test_layers_that_the_kernels_do_not_serve_say_why(text_folder):
    from sparse_train.tasks import make_task

    config = tiny(text_folder)
    task = make_task(config.task, config.task_options).prepare()
    model = task.build_model(config.model, config.preset, config.model_options)
    sparsifier = task.make_sparsifier(config, model, None)
    assert isinstance(sparsifier, Sparsifier)
    compute = SparseCompute(sparsifier)
    assert set(compute.layers) | set(compute.skipped) == set(sparsifier.layers)
    assert all(reason for reason in compute.skipped.values())
