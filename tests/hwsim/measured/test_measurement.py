"""Measurement records: what may be in one, and the file they are kept in."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from hwsim.measured.record import Measurement, read_measurements, write_measurements

GOOD = Measurement.of_median(
    1.5e-4, machine="card", toolchain="library 1.0", kernel="dense", phase="forward",
    m=64, n=32, k=16, dtype="bfloat16", rounds=15,
)  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.builds(
            lambda m, n, k, t, density, kernel: dataclasses.replace(
                GOOD, m=m, n=n, k=k, median_s=t, min_s=t, low_quartile_s=t, high_quartile_s=t,
                density=density, kernel=kernel,
            ),
            st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6),
            st.floats(1e-9, 1e3), st.floats(0, 1), st.sampled_from(["dense", "2:4", "csr·é"]),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_what_is_written_reads_back_equal(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "r.jsonl"
    write_measurements(path, records)
    assert read_measurements(path) == records


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"m": 0}, "m is 0"),
        ({"rounds": True}, "rounds is True"),
        ({"median_s": float("nan")}, "median_s is nan"),
        ({"min_s": 1.0}, "allowed is this order"),
        ({"phase": "sideways"}, "unknown phase 'sideways'"),
        ({"dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"cache": "hot"}, "unknown cache 'hot'"),
        ({"density": 1.5}, "density is 1.5"),
        ({"kernel": ""}, "kernel is ''"),
    ],
)
def test_an_impossible_record_is_refused_and_says_why(change, says):
    with pytest.raises(InputError, match=says):
        dataclasses.replace(GOOD, **change)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ("[1]", "list; allowed is one object a line"),
        ('{"machine": "x"}', "key 'toolchain' is missing"),
        (json.dumps(dataclasses.asdict(GOOD) | {"speed": 1}), "unknown key 'speed'"),
        (json.dumps(dataclasses.asdict(GOOD) | {"k": -1}), "k is -1"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line, says):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(GOOD)) + "\n\n" + line + "\n")
    with pytest.raises(InputError, match=f"r.jsonl:3: .*{says}"):
        read_measurements(path)


def test_a_missing_file_and_a_missing_folder_are_clear(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_measurements(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="No such file"):
        write_measurements(tmp_path / "none" / "r.jsonl", [GOOD])


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "r.jsonl"
    write_measurements(path, [GOOD])

    def broken():
        yield GOOD
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_measurements(path, broken())
    assert read_measurements(path) == [GOOD]
    assert list(tmp_path.iterdir()) == [path]
