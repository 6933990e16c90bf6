"""Device files and records as a stranger might write them: one line each, in bounded time."""

import json
import math
import os
import threading
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, gemm, load_device
from hwsim.files import parse_json
from hwsim.measured.gpu_suite import _mend
from hwsim.measured.record import Measurement, read_measurements

IDEAL = """model = "ideal"
description = "x"
[parameters]
peak_flops = {{ value = {value}, unit = "FLOP/s", source = "assumed" }}
"""


def refused(path, pattern=""):
    with pytest.raises(InputError, match=pattern) as caught:
        load_device(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "value",
    ["9" * 400, "9" * 5000, "1e-310", "-1e400", "nan", "[" * 5000 + "]" * 5000, "true", "'x'",
     "1e200"],
)  # fmt: skip
def test_hostile_numbers_of_a_device_are_one_line(tmp_path, value):
    path = tmp_path / "x.toml"
    path.write_text(IDEAL.format(value=value))
    refused(path, r"x\.toml")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"model = 3\n", b"model = ['ideal']\n", b"description = 4\nmodel = 'ideal'\n",
     b"a = " + b"[" * 100_000, b"parameters = 3\nmodel = 'ideal'\n", b"", b"\0"],
)  # fmt: skip
def test_hostile_texts_of_a_device_are_one_line(tmp_path, content):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    refused(path, r"x\.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_endless_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.toml")
    refused(tmp_path / "x.toml", "pipe or device")
    with pytest.raises(InputError, match="pipe or device"):
        read_measurements(tmp_path / "x.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    refused(tmp_path / "zero.toml", "pipe or device")
    assert threading.active_count() < 50


RECORD = asdict(Measurement.of_median(
    1e-3, machine="m", toolchain="t", kernel="dense", phase="forward", m=8, n=8, k=8,
    dtype="float32", rounds=3,
))  # fmt: skip
HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.integers(), max_size=2), st.just(10**400), st.just({"a": 1}), st.just(5e-324),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(RECORD)), HOSTILE)
def test_records_are_read_or_refused(tmp_path_factory, name, value):
    path = tmp_path_factory.mktemp("records") / "r.jsonl"
    path.write_text(json.dumps({**RECORD, name: value}) + "\n")
    try:
        (record,) = read_measurements(path)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return
    op = gemm(record.m, record.n, record.k)
    for name in ("ideal", "sigma-like", "tpu-like"):
        seconds = load_device(name).estimate(op).seconds
        assert 0 < seconds < math.inf


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 5000, '{"machine": ' + "9" * 5000 + "}"])
def test_hostile_json_is_one_line(tmp_path, line):
    (tmp_path / "r.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"r\.jsonl"):
        read_measurements(tmp_path / "r.jsonl")
    with pytest.raises(InputError, match="x: "):
        if not isinstance(parse_json(line.replace("9", "8"), "x"), int):
            raise InputError("x: read")


@pytest.mark.parametrize(
    "content", [b"dear diary", b"a\nb\nc", json.dumps(RECORD).encode() + b"\nnot mine", b"{}"]
)
def test_a_file_that_holds_no_records_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"r\.jsonl"):
        _mend(path)
    assert path.read_bytes() == content


def test_a_whole_last_line_is_kept_and_a_cut_one_removed(tmp_path):
    path, line = tmp_path / "r.jsonl", json.dumps(RECORD).encode()
    path.write_bytes(line + b"\n" + line)
    _mend(path)
    assert path.read_bytes() == (line + b"\n") * 2
    for cut in (1, 5, 40, len(line) - 1):
        path.write_bytes(line + b"\n" + line[:cut])
        _mend(path)
        assert path.read_bytes() == line + b"\n"
