"""An agent's comparison is concluded by the protocol of all comparisons."""

import numpy as np
import torch

from analysis.agents import judge
from analysis.agents.candidates import PROTOCOL, candidates
from analysis.agents.judge import Judged, Played, joined
from analysis.agents.outcome import AGENT, AgentTable
from analysis.agents.page import sentences
from analysis.agents.settle import tuning_seeds
from analysis.comparing.conclusion import Verdict
from rl.evaluate import Episodes
from rl.worlds import World

N = 4


def played(speeds, reached=True):
    time = 1 / torch.tensor(speeds, dtype=torch.float32)
    n = len(speeds)
    ends = torch.full((n,), 1.0 if reached else 0.5)
    paths = torch.stack([torch.zeros(n), ends])
    live = torch.ones(n, 1, dtype=torch.bool)
    found = Episodes(
        time, -time.log(), torch.ones(n).long(), torch.ones(1, n, 1), paths * time, paths, live
    )
    return Played(found, ("net on wafer",) * n, 0.0, (1e-3,) * n)


def contender(name, speed, replicates=10, spread=0.01, reached=True, **facts):
    rng = np.random.default_rng(len(name))
    runs = [
        played((speed * np.exp(spread * rng.normal(size=N))).tolist(), reached)
        for _ in range(replicates)
    ]
    return Judged(name, tuple(runs), **facts)


def outcome(*contenders):
    return AgentTable({"wafer": contenders}, "dense's loss")


def test_an_agent_that_is_twice_as_fast_as_all_is_said_to_be_so():
    found = outcome(
        contender(AGENT, 2.0), contender("dense", 1.0, spread=0.0), contender("narrower 50 %", 0.8),
        contender("best_constant", 1.0), contender("cma_es", 1.0),
    )  # fmt: skip
    (one,) = found.conclusions
    assert one.over_dense[AGENT].verdict == Verdict.FASTER and one.over_dense[AGENT].seeds == 10
    assert one.over_narrower[AGENT].verdict == Verdict.FASTER
    assert one.over_known[AGENT].other == "best_constant"
    assert one.beside["cma_es"].verdict == Verdict.FASTER
    (text,) = sentences(found)
    for said in ("agent reaches", "dense", "narrower 50 %", "best_constant", "CMA-ES: 1.99"):
        assert said in text
    rows = {row.name: row for row in found.rows("wafer")}
    assert all(rows[name].agent_over is not None for name in rows if name != AGENT)


def test_replicates_count_and_not_their_episodes():
    few = [contender(n, s, replicates=4) for n, s in ((AGENT, 2.0), ("dense", 1.0))]
    (one,) = outcome(*few).conclusions
    assert one.over_dense[AGENT].seeds == 4 and one.over_dense[AGENT].verdict == Verdict.FEW


def test_what_was_not_reached_is_charged_and_told():
    late = contender(AGENT, 0.5, reached=False)
    found = outcome(late, contender("dense", 1.0, spread=0.0))
    finding = found.conclusions[0].over_dense[AGENT]
    assert finding.reached == 0 and finding.speed_up is not None
    assert "reached in 0 %" in sentences(found)[0]


def test_a_rate_at_the_end_of_the_grid_forbids_a_claim():
    found = outcome(contender(AGENT, 2.0, at_an_end=True), contender("dense", 1.0))
    assert found.conclusions[0].over_dense[AGENT].verdict == Verdict.UNTUNED


def test_no_two_replicates_share_a_judged_or_a_tuning_seed():
    test = judge.Test(World(problems=(("mlp-2x24", "images"),), seeds=(64, 72)), episodes=4)
    judged = [test.place("wafer", i, 1.0, 1.0).seeds for i in range(2)]
    tuned = [tuning_seeds(i) for i in range(2)]
    every = [seed for seeds in (*judged, *tuned) for seed in seeds]
    assert len(set(every)) == len(every)


def test_the_protocol_has_dense_three_widths_and_its_opponents():
    made = candidates((), (0.5, 0.25, 0.1), real=True)
    names = [one.name for one in made]
    assert names[:4] == ["dense", "narrower 50 %", "narrower 25 %", "narrower 10 %"]
    assert tuple(names[4:]) == PROTOCOL
    assert all(len(one.densities) == 1 for one in made if one.tuned)
    assert len(next(one for one in made if one.name == "rigl").densities) == 3


def test_replicates_are_joined_in_order():
    parts = [contender("set", 1.0 + i, replicates=1, rates=(2.0**i,), note=f"at {i}")
             for i in range(2)]  # fmt: skip
    one = joined(parts)
    assert one.rates == (1.0, 2.0) and one.note == "at 0; at 1" and len(one.runs) == 2
