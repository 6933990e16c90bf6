"""Lottery tickets in the shipped loop: everything goes back, and the density is met."""

import pytest
import torch
from _tiny_run import tiny, write_text

from sparse_train.record import TrainingRecord
from sparse_train.runs.run import Run, private_randomness
from sparse_train.tasks import make_task
from sparse_train.trainer import train


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("t") / "text")


def lottery(text, **changes):
    settings = {
        "algorithm": "lottery", "density": 0.3, "update_interval": 4, "steps": 16,
        "algorithm_options": {"share": 0.5},
    }  # fmt: skip
    return tiny(text, **{**settings, **changes})


@pytest.mark.parametrize("rewind_step", [0, 4])
def test_at_a_pruning_all_parameters_and_moments_are_those_of_the_early_step(text, rewind_step):
    config = lottery(text, algorithm_options={"share": 0.5, "rewind_step": rewind_step},
                     steps=24)  # fmt: skip
    with private_randomness(0):
        run = Run(config, make_task("mlm", config.task_options).prepare())
        early = {n: p.detach().clone() for n, p in run.model.named_parameters()}
        pruned = 0
        while run.step < config.steps:
            _, changed = run.advance()
            if run.step == rewind_step:
                early = {n: p.detach().clone() for n, p in run.model.named_parameters()}
            if not changed:
                continue
            pruned += 1
            masks = {f"{n}.weight": torch.from_numpy(m.array.copy())
                     for n, m in run.sparsifier.masks().items()}  # fmt: skip
            for name, parameter in run.model.named_parameters():
                kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
                assert torch.equal(parameter.detach(), early[name] * kept), name
                slots = run.optimizer.state.get(parameter, {}).values()
                assert all(not s.any() for s in slots if isinstance(s, torch.Tensor)), name
    assert pruned >= 2


def test_each_round_has_a_learning_rate_of_its_own(text, tmp_path):
    record = train(lottery(text), tmp_path / "run")
    rates = record.training["learning_rate"].to_list()
    # Prunings after steps 4 and 8: the rate falls to 0 there, and warms up again.
    assert rates[3] == rates[7] == rates[15] == pytest.approx(0.0)
    assert rates[0:4] == pytest.approx(rates[4:8])
    assert rates[8:12] != pytest.approx(rates[0:4])


def test_a_ticket_ends_at_the_density_that_was_asked_for(text, tmp_path):
    record = train(lottery(text), tmp_path / "run")
    assert record.figures["density"] == pytest.approx(0.3, abs=0.01)


def test_a_stopped_search_goes_on_to_the_bit(text, tmp_path):
    whole = train(lottery(text), tmp_path / "a")
    for stop in (5, 9):
        train(lottery(text), tmp_path / "b", stop_after=stop)
    train(lottery(text), tmp_path / "b")
    again = TrainingRecord.load(tmp_path / "b")
    assert whole.training["loss"].to_list() == again.training["loss"].to_list()
