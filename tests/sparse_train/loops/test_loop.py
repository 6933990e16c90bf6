"""The context for loops written by hand: figures, checkpoints, and going on to the bit."""

import itertools

import pytest
import torch

from hwsim import InputError
from sparse_train.integrations.loop import sparse_loop
from tests.sparse_train.loops._loops import loss_of, net

torch.set_num_threads(1)
SETTINGS = {"density": 0.3, "update_interval": 3, "total_steps": 40}


def run(path, until, algorithm, log=None, seed=0, **settings):
    model = net(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with sparse_loop(model, optimizer, algorithm=algorithm, checkpoint=path, every=5, log=log,
                     **SETTINGS, **settings) as sparse:  # fmt: skip
        for step in range(sparse.steps, until):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            optimizer.step()
            sparse.step()
    return model, sparse


@pytest.mark.parametrize("algorithm", ["rigl", "snfs", "top_kast", "srigl"])
def test_a_run_that_was_cut_goes_on_to_the_bit(algorithm, tmp_path):
    straight, one = run(None, 20, algorithm)
    run(tmp_path / "run.pt", 11, algorithm)
    resumed, other = run(tmp_path / "run.pt", 20, algorithm, seed=4)
    assert other.steps == 20 and one.sparsifier.masks() == other.sparsifier.masks()
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.figures() == other.figures()


def test_figures_and_net_time_are_logged_and_go_on(tmp_path):
    logged = []
    log = lambda figures, step: logged.append((step, figures))  # noqa: E731
    straight = []
    run(None, 12, "rigl", lambda f, s: straight.append((s, f)), devices=("zen4",))
    run(tmp_path / "run.pt", 6, "rigl", log, devices=("zen4",))
    run(tmp_path / "run.pt", 12, "rigl", log, devices=("zen4",))
    assert logged == straight and [step for step, _ in logged] == list(range(1, 13))
    times = [figures["sparse/net_time_s/zen4"] for _, figures in logged]
    assert times[0] > 0 and all(b > a for a, b in itertools.pairwise(times))
    assert times[2] - times[1] > times[1] - times[0]  # the third step grows by dense gradients
    assert logged[-1][1]["sparse/updates"] == 4
    assert logged[-1][1]["sparse/explored"] > logged[-1][1]["sparse/density"]


def test_a_checkpoint_of_another_density_is_refused(tmp_path):
    run(tmp_path / "run.pt", 6, "rigl")
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    settings = {**SETTINGS, "density": 0.2}
    with (
        pytest.raises(InputError, match="density is"),
        sparse_loop(model, optimizer, checkpoint=tmp_path / "run.pt", **settings),
    ):
        pass
