"""Specifications: what is loaded, and what an author of one is told."""

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from hwsim import Device, InputError, device_names, load_device

GOOD = """\
model = "ideal"
description = "for the test"

[parameters]
peak_flops = { value = 1e12, unit = "FLOP/s", source = "data sheet" }
clock_hz = { value = 1e9, unit = "Hz", source = "assumed" }
"""
ARRAY = (resources.files("hwsim") / "devices" / "specs" / "systolic.toml").read_text("utf-8")


@pytest.fixture
def load(tmp_path):
    def load(content, **overrides):
        path = tmp_path / "mine.toml"
        path.write_text(content, encoding="utf-8")
        return load_device(path, **overrides)

    return load


@pytest.mark.parametrize("name", device_names())
def test_every_shipped_specification_loads_and_names_every_source(name):
    device = load_device(name)
    assert isinstance(device, Device)
    assert device.name == name
    assert device.description
    text = (resources.files("hwsim") / "devices" / "specs" / f"{name}.toml").read_text("utf-8")
    table = tomllib.loads(text)
    inherited = load_device(table["like"]).sources if "like" in table else {}
    assert set(device.sources) == {*table["parameters"], *inherited}
    assert all(source.strip() for source in device.sources.values())


def test_a_specification_gives_values_sources_and_a_description(load):
    device = load(GOOD)
    assert (device.peak_flops, device.clock_hz) == (1e12, 1e9)
    assert device.sources == {"peak_flops": "data sheet", "clock_hz": "assumed"}
    assert (device.name, device.description) == ("mine", "for the test")


def test_a_path_may_be_a_string(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_device(str(path)).name == "mine"


def test_overrides_replace_values_and_are_recorded_as_such(load):
    device = load(GOOD, peak_flops=2e12)
    assert device.peak_flops == 2e12
    assert device.sources == {"peak_flops": "override", "clock_hz": "assumed"}
    shipped = load_device("ideal", clock_hz=7)
    assert shipped.clock_hz == 7.0
    assert shipped.sources["clock_hz"] == "override"
    assert shipped.sources["peak_flops"] != "override"
    assert load_device("ideal").clock_hz != 7.0


def test_an_override_can_stand_for_what_the_file_leaves_out(load):
    lines = [line for line in GOOD.splitlines() if not line.startswith("clock_hz")]
    assert load("\n".join(lines), clock_hz=3e9).clock_hz == 3e9


def test_an_unknown_device_is_answered_with_all_valid_names():
    with pytest.raises(InputError, match=r"unknown device 'idea'.*did you mean 'ideal'") as caught:
        load_device("idea")
    assert all(name in str(caught.value) for name in device_names())


def test_an_unknown_override_is_answered_with_the_parameters():
    with pytest.raises(
        InputError,
        match=r"'ideal'.*parameter 'peak_flop'.*'peak_flops'.*clock_hz, memory_bytes, peak_flops",
    ):
        load_device("ideal", peak_flop=1e12)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "1e12", None, True, [1.0]], ids=repr)
def test_an_impossible_override_is_refused_with_what_is_allowed(value):
    with pytest.raises(InputError, match=r"'ideal': peak_flops: value is .*above 0 \(FLOP/s\)"):
        load_device("ideal", peak_flops=value)


@pytest.mark.parametrize("value", [2.5, 0, -3, float("inf"), float("nan"), True], ids=repr)
def test_an_integer_parameter_takes_integers(value):
    with pytest.raises(InputError, match=r"rows: value is .*allowed is an integer of at least 1"):
        load_device("systolic", rows=value)


def test_an_integral_number_is_an_integer():
    device = load_device("systolic", rows=16.0)
    assert device.rows == 16
    assert isinstance(device.rows, int)


def test_a_choice_is_one_of_the_choices():
    with pytest.raises(InputError, match=r"dataflow: value is 'diagonal'; allowed: .*ws"):
        load_device("systolic", dataflow="diagonal")


@pytest.mark.parametrize("name", ["no/such/device", "missing.toml", Path("missing")], ids=str)
def test_a_path_that_does_not_exist_is_named(name, tmp_path):
    wanted = tmp_path / name
    with pytest.raises(InputError, match="No such file") as caught:
        load_device(wanted if isinstance(name, Path) else str(wanted))
    assert str(wanted) in str(caught.value)


def test_a_directory_is_no_specification(tmp_path):
    with pytest.raises(InputError, match="directory"):
        load_device(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml"):
        load_device(path)


def test_broken_toml_names_the_file_and_the_line(load):
    broken = GOOD.replace('source = "data sheet" }', 'source = "data sheet"')
    with pytest.raises(InputError, match=r"mine\.toml: not valid TOML: .*line 5"):
        load(broken)


ENTRY = '{ value = 1e12, unit = "FLOP/s", source = "data sheet" }'


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{ value = 1e12, unit = "GFLOP/s", source = "x" }', "unit is 'GFLOP/s'.*'FLOP/s'"),
        ('{ value = 1e12, unit = "FLOP/s" }', "'source' is missing"),
        ('{ value = 1e12, unit = "FLOP/s", source = " " }', "source is empty"),
        ('{ value = 1e12, unit = "FLOP/s", source = 3 }', "source is empty"),
        ('{ unit = "FLOP/s", source = "x" }', "'value' is missing"),
        ('{ value = 1e12, source = "x" }', "'unit' is missing"),
        ('{ value = nan, unit = "FLOP/s", source = "x" }', "value is nan; .*above 0"),
        ('{ value = -1.0, unit = "FLOP/s", source = "x" }', r"value is -1\.0; .*above 0"),
        ('{ value = 0, unit = "FLOP/s", source = "x" }', "value is 0; .*above 0"),
        ('{ value = "fast", unit = "FLOP/s", source = "x" }', "value is 'fast'; .*a number"),
        ('{ value = 1, unit = "FLOP/s", source = "x", sorce = "y" }', "unknown key 'sorce'"),
        ("1e12", "allowed is a table .*value .*FLOP/s.*source"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named_with_file_line_and_key(load, entry, message):
    assert ENTRY in GOOD
    with pytest.raises(InputError, match=rf"mine\.toml:5: peak_flops.*{message}"):
        load(GOOD.replace(ENTRY, entry))


def test_a_number_that_is_no_integer_is_refused_where_one_is_needed(load):
    line = next(n for n, x in enumerate(ARRAY.splitlines(), 1) if x.startswith("rows"))
    value = tomllib.loads(ARRAY)["parameters"]["rows"]["value"]
    broken = ARRAY.replace(f"rows = {{ value = {value},", f"rows = {{ value = {value}.5,")
    assert broken != ARRAY
    with pytest.raises(InputError, match=rf"mine\.toml:{line}: rows: value is .*an integer"):
        load(broken)


def test_a_missing_parameter_is_named_with_its_unit(load):
    lines = [line for line in GOOD.splitlines() if not line.startswith("clock_hz")]
    with pytest.raises(InputError, match=r"mine\.toml: parameter 'clock_hz' \(Hz\) is missing"):
        load("\n".join(lines))
    with pytest.raises(InputError, match=r"'peak_flops'.*is missing"):
        load('model = "ideal"\n')


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("description =", "descripton =", r"mine\.toml:2: unknown key 'descripton'"),
        ("clock_hz =", "clock_ghz =", r"mine\.toml:6: unknown parameter 'clock_ghz'.*'clock_hz'"),
        ('model = "ideal"', 'model = "idol"', r"mine\.toml:1: unknown device model 'idol'.*ideal"),
        ('model = "ideal"', "", r"mine\.toml: key 'model' is missing \(valid: .*ideal"),
        ("[parameters]", "[parameter]", r"mine\.toml:4: unknown key 'parameter'"),
    ],
    ids=str,
)
def test_an_unknown_or_missing_key_is_named_with_its_line(load, old, new, message):
    with pytest.raises(InputError, match=message):
        load(GOOD.replace(old, new))


def test_parameters_are_a_table(load):
    with pytest.raises(InputError, match=r"mine\.toml:2: allowed is a table"):
        load('model = "ideal"\nparameters = 3\n')
