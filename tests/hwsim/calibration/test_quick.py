"""Constants of a CPU carried over to another host by a few records of it."""

from dataclasses import replace

import numpy as np
import pytest

from hwsim import InputError, load_device
from hwsim.calibration import quick
from hwsim.cpu.costs import KERNEL_TERMS
from hwsim.cpu.machine import measured_on, whose_price
from hwsim.measured.record import Measurement


def records_of(device, slower: dict[str, float], noise: float = 0.0) -> list[Measurement]:
    """What a host would time whose kernels are so much slower than the device says."""
    rng = np.random.default_rng(0)
    made = []
    for kernel, phase in (("dense", "forward"), ("csr", "forward"), ("tiled", "forward"),
                          ("sampled", "grad_weight"), ("lookup", "forward")):  # fmt: skip
        for m, n, k in ((64, 768, 768), (8, 512, 1024), (16, 2048, 384)):
            record = Measurement.of_median(
                1.0, machine="Other CPU", toolchain="t", kernel=kernel, phase=phase, m=m, n=n, k=k,
                dtype="float32", rounds=3, density=1.0 if kernel == "dense" else 0.1,
                lookup_steps=5000, weight_lines=4000,
            )  # fmt: skip
            seconds = device.price_record(record).seconds * slower[kernel]
            seconds *= 1 + noise * rng.standard_normal()
            made.append(replace(
                record, median_s=seconds, min_s=seconds, low_quartile_s=seconds,
                high_quartile_s=seconds,
            ))  # fmt: skip
    return made


SLOWER = {"dense": 1.5, "csr": 1.3, "tiled": 1.6, "sampled": 1.4, "lookup": 0.8}


def test_a_slower_hosts_kernels_are_scaled_each_by_its_own_ratio(tmp_path):
    zen3 = load_device("zen3")
    records = records_of(zen3, SLOWER)
    found = quick.scaling(zen3, records)
    assert set(found.ratios) == set(KERNEL_TERMS)
    for kernel, ratio in SLOWER.items():
        assert found.ratios[kernel] == pytest.approx(ratio)
    assert found.ratios["select"] == pytest.approx(1.4)  # no record: the median of the others
    assert found.before > 0.2 and found.after < 1e-9
    path = tmp_path / "mine.toml"
    path.write_text(quick.scaled_text(zen3, found, machine='Other "CPU"', clock_hz=3e9))
    mine = load_device(path)
    for record in records:
        assert mine.price_record(record).seconds == pytest.approx(record.min_s, rel=2e-3)
    assert measured_on(mine) == "Other CPU"
    assert "measured on Other CPU" in whose_price(mine)


def test_noise_is_averaged_out():
    zen3 = load_device("zen3")
    found = quick.scaling(zen3, records_of(zen3, SLOWER, noise=0.05))
    assert found.after < 0.1 < found.before


def test_records_of_other_kernels_say_nothing():
    zen3 = load_device("zen3")
    (record, *_) = records_of(zen3, SLOWER)
    with pytest.raises(InputError, match="none of a CPU kernel"):
        quick.scaling(zen3, [replace(record, kernel="2:4")])


def test_a_price_says_whose_processor_it_is_of(monkeypatch):
    zen3 = load_device("zen3")
    assert measured_on(zen3) == "AMD EPYC"
    monkeypatch.setattr("hwsim.cpu.machine.processor", lambda: "Some CPU")
    assert "measured on AMD EPYC, this is Some CPU" in whose_price(zen3)
    monkeypatch.setattr("hwsim.cpu.machine.processor", lambda: "AMD EPYC")
    assert "hosts of one name differ" in whose_price(zen3)
    assert whose_price(load_device("ideal")) == ""
