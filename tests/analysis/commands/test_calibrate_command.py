"""`nettime calibrate` and `nettime crosscheck`: from records to a device and back."""

import pytest

from tests.made_up_records import write_products


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.jsonl"
    write_products(path, "a100")
    return path


def test_a_calibrated_device_is_nearer_its_records_than_the_data_sheet(nettime, records, tmp_path):
    out = tmp_path / "card.toml"
    done = nettime(
        "calibrate", "gpu", "--records", str(records), "--data-sheet", "h100_sxm",
        "--out", str(out), "--json",
    )  # fmt: skip
    assert {row["kernel"] for row in done.json["held_out"]} == {"dense", "2:4"}
    errors = {}
    for device in ("h100_sxm", str(out)):
        shown = nettime("crosscheck", "--device", device, "--records", str(records), "--json")
        errors[device] = max(row["time_mape"] for row in shown.json["kernels"])
    assert errors[str(out)] < 0.5 * errors["h100_sxm"]


def test_crosscheck_prints_tables_of_80_columns(nettime, records):
    shown = nettime("crosscheck", "-d", "a100", "--records", str(records), "--worst", "2")
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "By size" in shown.out and "Worst" in shown.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["calibrate", "tpu", "--out", "x.toml"], "unknown calibrate 'tpu'"),
        (["calibrate", "gpu", "--out", "x.txt"], "ends in .toml"),
        (["calibrate", "gpu", "--out", "/none/x.toml"], "does not exist"),
        (["calibrate", "gpu", "--out", "x.toml"], "both --records FILE and --data-sheet"),
        (["calibrate", "cpu", "--out", "x.toml", "--records", "r"], "times this machine"),
        (["crosscheck", "-d", "a100", "--records", "none.jsonl"], "No such file"),
        (["crosscheck", "-d", "a100"], "--records: none given; allowed without it is a cpu"),
        (["crosscheck", "-d", "a100", "--records", "x", "--worst", "-1"], "--worst: value is -1"),
    ],
)
def test_bad_input_is_one_line(nettime, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in nettime(*arguments).error
    assert list(tmp_path.iterdir()) == []
