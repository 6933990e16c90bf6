"""Everything that is taken by name can be a stranger's: by reference, or installed."""

import json
import subprocess
import sys
import textwrap
from importlib import resources

import pytest

from analysis.cli import run
from hwsim import InputError, load_device
from hwsim.references import is_reference, load
from hwsim.registry import Names
from rl.baselines import OPPONENTS
from rl.rewards import REWARDS
from sparse_train.distributions import DISTRIBUTIONS, distribution
from sparse_train.patterns import projection
from sparse_train.registries import ALGORITHMS, PATTERNS, TASKS
from sparse_train.regularisers import regulariser
from sparse_train.schedules import schedule
from sparse_train.testing import check_algorithm

STRANGER = '''
"""A stranger's algorithm, all of it."""

from dataclasses import dataclass

import numpy as np

from sparse_train.algorithms import View
from sparse_train.algorithms.set import Set


@dataclass(frozen=True)
class Columns(Set):
    """SET that grows where a column has few weights."""

    power: float = 1.0

    def grow_scores(self, view: View, layer: str) -> np.ndarray:
        mask = view.masks[layer]
        room = (1.0 - mask.mean(axis=0)) ** self.power
        return (room + view.rng.random(mask.shape)).astype(np.float32)


INSTANCE = Columns(power=2.0)


def thirds(shapes, density):
    return dict.fromkeys(shapes, density)


def late(start, end):
    return lambda progress: end if progress > 0.5 else start
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A working directory with `stranger.py` in it, forgotten afterwards."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:B", True), ("a.b:C", True), ("dir/a.py:B", True), ("a:B:1,2", True),
        ("2:4", False), ("block:16,16", False), ("rigl", False), (":x", False), ("a:", False),
        (3, False),
    ],
)  # fmt: skip
def test_the_form_of_a_reference(text, expected):
    assert is_reference(text) is expected


def test_a_strangers_algorithm_is_trained_compared_and_reported(stranger, capsys):
    tiny = ["--set", "preset=tiny", "--steps", "30"]
    train = [
        "train", "--algorithm", "stranger:Columns", "--density", "0.2", "--run", "mine",
        "--distribution", "stranger:thirds", "--set", "schedule=stranger:late",
        "--set", "update_interval=5", "--device", "ideal", "--json", *tiny,
    ]  # fmt: skip
    assert run(train) == 0
    first = json.loads(capsys.readouterr().out)
    config = json.loads((stranger / "mine" / "config.json").read_text())
    assert set(config["origins"]) == {"algorithm", "distribution", "schedule"}
    assert config["origins"]["algorithm"]["file"] == str(stranger / "stranger.py")
    assert run(train) == 0  # complete: only read
    assert json.loads(capsys.readouterr().out)["evaluations"] == first["evaluations"]
    assert run(["report", "mine", "--device", "ideal"]) == 0
    assert "stranger:Columns" in capsys.readouterr().out
    check_algorithm(ALGORITHMS.get("stranger:Columns")(), examples=5)


def test_a_comparison_takes_it_with_its_options(stranger):
    from analysis.comparing.variants import variant

    made = variant("stranger:Columns,power=3")
    assert made.options == {"power": 3}
    assert all(c.isalnum() or c in "._-" for c in made.key)


def test_a_run_says_when_what_it_was_begun_with_is_gone_or_changed(stranger, capsys):
    train = [
        "train", "--algorithm", "stranger.py:INSTANCE", "--density", "0.2", "--run", "mine",
        "--set", "preset=tiny", "--steps", "6", "--device", "ideal",
    ]  # fmt: skip
    assert run(train) == 0
    file = stranger / "stranger.py"
    file.write_text(STRANGER + "# changed\n")
    capsys.readouterr()
    assert run(train) == 2
    assert "another content" in capsys.readouterr().err
    file.unlink()
    assert run(train) == 2
    error = capsys.readouterr().err
    assert str(file) in error and error.count("\n") == 1
    assert run(["report", "mine", "--device", "ideal"]) == 0  # what is recorded is still read


def test_instances_take_no_options(stranger):
    from sparse_train.masking.build import make_algorithm

    assert make_algorithm("stranger:INSTANCE", {}).power == 2.0
    with pytest.raises(InputError, match="options go with"):
        make_algorithm("stranger:INSTANCE", {"power": 1.0})
    with pytest.raises(InputError, match="is a function"):
        make_algorithm("stranger:thirds", {})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Thing", "no module 'nowhere'"),
        ("stranger:Colums", "did you mean 'Columns'"),
        ("absent.py:Thing", "no file absent.py"),
    ],
)
def test_what_is_not_there_is_one_line(stranger, reference, message):
    with pytest.raises(InputError, match=message) as error:
        ALGORITHMS.get(reference)
    assert "\n" not in str(error.value)


def test_an_error_while_importing_is_named(stranger):
    (stranger / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load("broken:Thing", "algorithm")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load("broken.py:Thing", "algorithm")


def test_reading_a_name_imports_nothing(stranger):
    (stranger / "loud.py").write_text("raise SystemExit('imported')\n")
    for registry in (ALGORITHMS, TASKS, DISTRIBUTIONS, REWARDS, OPPONENTS):
        registry.check("loud:Thing")
        with pytest.raises(InputError, match="or module:name"):
            registry.check("loud")


def test_patterns_rewards_devices_and_the_rest_by_reference(stranger):
    (stranger / "parts.py").write_text(
        textwrap.dedent("""
        from dataclasses import dataclass
        from hwsim.devices.ideal import Ideal
        from rl.baselines.dense import Dense
        from sparse_train.patterns.block import Block
        from sparse_train.regularisers import Regulariser

        class Mine(Ideal):
            pass

        class Opposed(Dense):
            pass

        class Tiles(Block):
            pass

        @dataclass(frozen=True)
        class Square(Regulariser):
            def penalty(self, weight):
                return weight.square().sum()

        def reward(before, after):
            return after.accuracy - before.accuracy
        """)
    )
    assert type(projection("parts:Tiles:2,2")).__name__ == "Tiles"
    assert projection("parts:Tiles:2,2") == projection("parts:Tiles:2,2")
    assert projection("block:2,2").units is not None
    assert regulariser("parts:Square:0.5").strength == 0.5
    assert regulariser("l1:0.5").strength == 0.5
    with pytest.raises(InputError, match="strength is 'much'"):
        regulariser("l1:much")
    assert REWARDS.get("parts:reward").__name__ == "reward"
    assert OPPONENTS.get("parts:Opposed").__name__ == "Opposed"
    assert distribution("equal_marginal_time:ideal")({"a": (8, 8)}, 0.5) == {"a": 0.5}
    assert schedule("0:1,1:0.5", 1.0, 0.5)(0.5) == 0.75
    spec = stranger / "mine.toml"
    shipped = resources.files("hwsim") / "devices" / "specs" / "ideal.toml"
    source = shipped.read_text(encoding="utf-8").replace('"ideal"', '"parts:Mine"')
    spec.write_text(source)
    assert type(load_device(spec)).__name__ == "Mine"


def test_installed_members_are_listed_and_taken(stranger, monkeypatch):
    folder = stranger / "site" / "stranger-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[nettime.algorithms]\ncolumns = stranger:Columns\nbroken = nowhere:Thing\n"
        "rigl = nowhere:Thing\n"
    )
    monkeypatch.syspath_prepend(stranger / "site")
    monkeypatch.syspath_prepend(stranger)
    assert "columns" in ALGORITHMS.names()
    assert ALGORITHMS.get("columns").__name__ == "Columns"
    assert ALGORITHMS.origin("columns") == {
        "package": "stranger 1.0", "entry_point": "stranger:Columns",
    }  # fmt: skip
    assert ALGORITHMS.get("rigl").__module__ == "sparse_train.algorithms.rigl"
    with pytest.raises(InputError, match="nowhere:Thing cannot be imported"):
        ALGORITHMS.get("broken")


def test_nothing_stays_on_the_path(stranger):
    before = list(sys.path)
    load("stranger:Columns", "x")
    load("stranger.py:Columns", "x")
    with pytest.raises(InputError):
        load("nowhere:Columns", "x")
    assert sys.path == before


def test_a_file_given_twice_is_one_module(stranger):
    assert load("stranger.py:Columns", "x") is load("./stranger.py:Columns", "x")


def test_every_registry_has_a_group_of_its_own():
    groups = [r.group for r in (ALGORITHMS, PATTERNS, TASKS, DISTRIBUTIONS, REWARDS, OPPONENTS)]
    assert len(set(groups)) == len(groups) and all(g.startswith("nettime.") for g in groups)
    assert all(isinstance(r, Names) for r in (ALGORITHMS, DISTRIBUTIONS))


def test_the_console_command_finds_what_lies_in_the_working_directory(stranger):
    code = "from analysis.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--algorithm", "stranger:Nothing", "--run", "r"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "unknown name 'Nothing'" in done.stderr
