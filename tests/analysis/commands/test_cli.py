import os
import signal
import subprocess
import sys
import time

import pytest

from hwsim import device_names

COMMANDS = ("estimate", "train", "devices", "calibrate", "crosscheck", "report", "demo")


def test_help_lists_every_command(nettime):
    shown = nettime("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert command in shown.out


def test_without_a_command_help_is_shown(nettime):
    assert nettime().out == nettime("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_examples_and_json(nettime, command):
    shown = nettime(command, "--help")
    assert shown.code == 0
    assert f"nettime {command}" in shown.out[shown.out.index("Examples") :]
    assert "--json" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())


def test_help_needs_no_torch():
    code = (
        "import sys; from analysis.cli import run; run(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'polars', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"),
        (["devices", "--nonsense"], "--nonsense"),
        (["devices", "idael"], "did you mean 'ideal'?"),
        (["estimate", "--density", "much", "bert-tiny"], "--density"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(nettime, arguments, words):
    assert words in nettime(*arguments).error


def test_devices_lists_all_and_fits_80_columns(nettime):
    shown = nettime("devices")
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "…" not in shown.out
    for name in device_names():
        assert name in shown.out


def test_only_kernels_whose_price_was_held_against_real_ones_are_verified(nettime):
    for name, held in {
        "h100": {"dense", "2:4"},  # measured in bfloat16; others are modelled from data sheets
        "h200": set(),
        "ideal": {"arithmetic"},  # true by definition
        "systolic": set(),
    }.items():
        found = nettime("devices", name, "--json").json["kernels"]
        assert {kernel for kernel, verified in found.items() if verified} == held, name


def test_devices_as_json_has_unit_and_source_of_every_number(nettime):
    found = nettime("devices", "--json").json["devices"]
    assert [d["name"] for d in found] == list(device_names())
    for device in found:
        assert device["kernels"]
        for parameter in device["parameters"].values():
            assert set(parameter) == {"value", "unit", "meaning", "source"}
            assert parameter["source"]


@pytest.mark.parametrize("name", device_names())
def test_one_device_shows_every_parameter_within_80_columns(nettime, name):
    shown = nettime("devices", name)
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    flat = "".join(shown.out.split())
    for parameter in nettime("devices", name, "--json").json["parameters"]:
        assert parameter in flat


GOOD = """model = "ideal"
description = "mine"
[parameters]
peak_flops = { value = 1.0e9, unit = "FLOP/s", source = "assumed: mine" }
clock_hz = { value = 1.0e9, unit = "Hz", source = "data sheet" }
"""


def test_check_tells_what_is_assumed(nettime, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(GOOD)
    shown = nettime("devices", "--check", file)
    assert shown.code == 0
    assert "usable" in shown.out and "peak_flops" in shown.out
    assert nettime("devices", "--check", file, "--json").json["assumed"] == ["peak_flops"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (GOOD.replace("peak_flops = {", "peak_flops = ["), "not valid TOML"),
        (GOOD.replace("peak_flops", "peak_flop"), "my.toml:4"),
        (GOOD.replace('"Hz"', '"s"'), "my.toml:5"),
        (GOOD.replace('"ideal"', '"ideel"'), "my.toml:1"),
        (GOOD.replace('1.0e9, unit = "FLOP', '-1, unit = "FLOP'), "above 0"),
    ],
)
def test_check_names_file_line_and_key_of_what_is_wrong(nettime, tmp_path, broken, words):
    file = tmp_path / "my.toml"
    file.write_text(broken)
    assert words in nettime("devices", "--check", file).error


def test_a_reader_that_stops_early_gets_no_traceback():
    code = (
        "from analysis.display import console; console.QUIET_S = 1e6\n"  # no lines of progress
        "from analysis.cli import main; main(['devices', '--json'])"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""


def test_ctrl_c_is_one_line_and_exit_code_130():
    code = (
        "import time, analysis.commands.devices as d\n"
        "def wait(*a, **k):\n    print('waiting', flush=True); time.sleep(60)\n"
        "d._print_all = wait\n"
        "from analysis.cli import main; main(['devices'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert len(err.splitlines()) == 1 and err.startswith("nettime: interrupted")
