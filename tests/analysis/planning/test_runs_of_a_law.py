"""What runs say of a law."""

import pytest

from analysis.planning.sizes import points


def train(nettime, out, *more):
    made = nettime(
        "train", "--task", "images", "--model", "mlp", "--steps", "4", "--batch-size", "8",
        "--run", out, *more,
    )  # fmt: skip
    assert made.code == 0, made.err


def test_noise_is_what_runs_that_differ_by_the_seed_alone_are_off_their_mean(nettime, tmp_path):
    for seed in ("0", "1"):
        train(nettime, tmp_path / f"dense{seed}", "--algorithm", "dense", "--seed", seed)
    train(nettime, tmp_path / "set", "--algorithm", "static", "--density", "0.2")
    read = points([tmp_path])
    one, two = (point.loss for point in read.points if point.sparsity == 0)
    # The mean of two is nearer to them by √(1 − 1/2) than the expected loss is.
    assert read.noise == pytest.approx(abs(one - two) / (one + two) * 2**0.5) and one != two
    assert len(read.points) == 3 and read.config.algorithm == "dense"


def test_without_a_setting_that_was_run_twice_no_noise_is_known(nettime, tmp_path):
    train(nettime, tmp_path / "dense", "--algorithm", "dense")
    assert points([tmp_path]).noise is None
