"""Small networks trained at once against one by one, and how many real episodes that makes.

python benchmarks/bench_population.py [--seconds 60] [--task mlm]

Prints net-steps per second of a population and of the plain loop, in turn within one run, for each
problem; then the episodes that two processes of one thread each finish, and the share of that time
that prices and rewards took.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

import torch

from rl.envs import training
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.runs import prices as pricing
from rl.runs.problems import SETTINGS, Problem
from sparse_train.population.feed import Feed
from sparse_train.population.train import Population

PROBLEMS = {"mlm": "bert-1x16", "images": "mlp-2x32"}
SIZES = (8, 32, 128)
PROCESSES = 2


def masks_at(population: Population, density: float) -> None:
    nnz = (population.sizes * density).round().long().expand(population.size, -1)
    population.update(torch.arange(population.size), nnz, range(population.size))


def population_rate(problem: Problem, size: int, steps: int) -> float:
    """Net-steps a second of processor time, at density 0.25."""
    s = problem.setting
    population = Population(problem.data, problem.build(), size, s.optimizer)
    weights = [population.flat(problem.build(seed % 8)) for seed in range(size)]
    population.start(torch.arange(size), torch.stack(weights))
    masks_at(population, 0.25)
    feed, seeds = Feed(problem.data, s.batch_size), [i % 8 for i in range(size)]
    for step in range(1, steps + 1):
        feed(seeds, [step] * size)
    population.step(feed(seeds, [1] * size))
    start = time.process_time()
    for step in range(1, steps + 1):
        population.step(feed(seeds, [step] * size))
    return size * steps / (time.process_time() - start)


def loop_rate(problem: Problem, steps: int) -> float:
    """The same of one network after the other: torch's AdamW, gradients masked before it."""
    s = problem.setting
    model = problem.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.optimizer.lr)
    masks = [(p, torch.rand(p.shape) < 0.25) for p in model.parameters() if p.ndim == 2]
    batches = [problem.data.batch(step, s.batch_size, 0) for step in range(1, steps + 1)]
    for warm in (True, False):
        start = time.process_time()
        for batch in batches[: 3 if warm else steps]:
            optimizer.zero_grad()
            problem.data.loss(model, batch).backward()
            for parameter, mask in masks:
                parameter.grad.mul_(mask)
            optimizer.step()
    return steps / (time.process_time() - start)


def compare(problem: Problem, steps: int, rounds: int) -> None:
    parameters = sum(p.numel() for p in problem.build().parameters())
    print(f"{problem.network} on {problem.task}, {parameters:,} parameters, net-steps per second:")
    for size in SIZES:
        few = max(2, steps * 8 // size)
        pairs = [
            (population_rate(problem, size, few), loop_rate(problem, steps)) for _ in range(rounds)
        ]
        many, one = max(p[0] for p in pairs), max(p[1] for p in pairs)
        print(f"  {size:4d} at once {many:8,.0f}   one by one {one:7,.0f}   ×{many / one:.1f}")


def episodes(task: str, slots: int, seconds: float, seed: int, out) -> None:
    """Random actions in `slots` slots for so much processor time.

    Puts (episodes, seconds of clock, of processor, share of prices and rewards, seconds of tables,
    seconds of what is made once: tables, dense runs and code) to `out`.
    """
    torch.set_num_threads(1)
    spent = {"lookup": 0.0, "prices": 0.0, "reward": 0.0}

    def timed(name, function):
        def call(*args, **options):
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent[name] += time.process_time() - start

        return call

    pricing.lookup = timed("lookup", pricing.lookup)
    training.prices = timed("prices", training.prices)
    problem = (PROBLEMS[task], task)
    env = SparseTrainingEnv(TrainingConfig(problems=(problem,)), slots, seed=seed)
    env.reward_function = timed("reward", env.reward_function)
    start, began = time.perf_counter(), time.process_time()
    rng = torch.Generator().manual_seed(seed)
    seen, finished = env.reset(), 0
    once = time.process_time() - began
    while time.process_time() - began < seconds:
        seen["action"] = torch.randint(0, 3, env.density.shape, generator=rng)
        seen = env.step(seen)["next"]
        if seen["done"].any():
            finished += int(seen["done"].sum())
            seen["_reset"] = seen["done"].clone()
            seen = env.reset(seen)
    wall, used = time.perf_counter() - start, time.process_time() - began
    share = (spent["lookup"] + spent["reward"]) / used
    out.put((finished, wall, used, share, spent["prices"], once))


def count_episodes(task: str, slots: int, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [
        context.Process(target=episodes, args=(task, slots, seconds, seed, out))
        for seed in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    found = [out.get() for _ in workers]
    for worker in workers:
        worker.join()
    finished = sum(f[0] for f in found)
    wall, used = max(f[1] for f in found), sum(f[2] for f in found)
    once, cores = sum(f[5] for f in found), 600 * PROCESSES
    in_ten = finished / (used - once) * (cores - once)
    print(
        f"{PROBLEMS[task]} on {task}, {PROCESSES} processes of {slots} runs each, random actions: "
        f"{finished:,} real episodes in {used:.0f} s of processor ({wall:.0f} s of clock): "
        f"{in_ten:,.0f} in ten minutes of {PROCESSES} cores, of which "
        f"dense runs and other things made once take {once:.0f} s; prices "
        f"and rewards took {max(f[3] for f in found):.2%}, making the tables once "
        f"{max(f[4] for f in found):.1f} s of each process"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of processor time, each process"
    )
    parser.add_argument("--steps", type=int, default=40, help="of the plain loop in a comparison")
    parser.add_argument("--rounds", type=int, default=2, help="of a comparison; the best counts")
    parser.add_argument("--slots", type=int, default=32, help="runs of a process")
    parser.add_argument("--task", action="append", choices=PROBLEMS, help="repeatable; all")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    tasks = given.task or [task for task in PROBLEMS if task in SETTINGS]
    for task in tasks:
        compare(Problem(PROBLEMS[task], task), given.steps, given.rounds)
    for task in tasks:
        count_episodes(task, given.slots, given.seconds)
