"""Cross-check: its figures are those worked out by hand, and it prices what was timed."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from gpu_records import CARDS, bench_records, needs_bench

from hwsim import Device, Estimate, InputError, load_device
from hwsim.measured.crosscheck import crosscheck
from hwsim.measured.record import Measurement


def record(kernel, m, seconds, **changes):
    fields = {
        "machine": "card", "toolchain": "x", "phase": "forward", "n": 64, "k": 64,
        "dtype": "bfloat16", "rounds": 9, "density": 1.0 if kernel == "dense" else 0.5,
    }  # fmt: skip
    return Measurement.of_median(seconds, **{**fields, **changes}, kernel=kernel, m=m)


@dataclass(frozen=True, eq=False)
class Fixed(Device):
    """Dense takes m seconds, 2:4 half of that; the interval is ± 10 %."""

    def price(self, op):
        return tuple(
            Estimate(s, 0.9 * s, 1.1 * s, 0, 0, 0, kernel, "compute")
            for kernel, s in (("dense", float(op.m)), ("2:4", op.m / 2))
        )

    def roofline(self, op):
        return 0.0


FOUR = [
    record("dense", 1, 1.0), record("2:4", 1, 1.0),  # speed-up 1, estimated 2
    record("dense", 2, 4.0), record("2:4", 2, 1.0),  # speed-up 4
    record("dense", 4, 4.0), record("2:4", 4, 5.0),  # 2:4 loses: a miss
]  # fmt: skip


def test_errors_speed_ups_and_hits_are_those_worked_out_by_hand():
    check = crosscheck(Fixed(name="fixed"), FOUR)
    assert check.time_mape("dense") == pytest.approx((0 + 0.5 + 0) / 3)
    assert check.time_mape("2:4") == pytest.approx((0.5 + 0 + 0.6) / 3)
    assert check.time_mape() == pytest.approx(1.6 / 6)
    assert check.speed_ups().tolist() == [[1.0, 2.0], [4.0, 2.0], [0.8, 2.0]]
    assert check.speed_up_mape() == pytest.approx((1 + 0.5 + 1.5) / 3)
    assert check.coverage() == pytest.approx(3 / 6)
    assert [p.record for p in check.worst(1)] == [FOUR[5]]


def test_the_fastest_kernel_is_hit_where_the_measured_one_was_estimated_fastest():
    check = crosscheck(Fixed(name="fixed"), FOUR[2:])
    assert check.fastest_hit_rate() == 0.5
    assert check.fastest_hit_rate(slack=10.0) == 1.0
    alone = crosscheck(Fixed(name="fixed"), FOUR[:1])
    assert np.isnan(alone.fastest_hit_rate()) and np.isnan(alone.speed_up_tau())


@dataclass(frozen=True, eq=False)
class Ranked(Fixed):
    """2:4 speed-up grows with m."""

    def price(self, op):
        dense, sparse = Fixed.price(self, op)
        return dense, dataclasses.replace(sparse, seconds=1.0, low_s=0.9, high_s=1.1)


def test_tau_is_one_for_the_same_order_and_minus_one_for_the_reverse():
    same = [record(k, m, m if k == "dense" else 1.0) for m in (1, 2, 3) for k in ("dense", "2:4")]
    reverse = [
        record(k, m, 4 - m if k == "dense" else 1.0) for m in (1, 2, 3) for k in ("dense", "2:4")
    ]
    assert crosscheck(Ranked(name="r"), same).speed_up_tau() == pytest.approx(1.0)
    assert crosscheck(Ranked(name="r"), reverse).speed_up_tau() == pytest.approx(-1.0)


def test_records_of_another_dtype_cache_or_machine_are_no_baseline():
    others = [
        record("dense", 1, 1.0, dtype="float16"),
        record("dense", 1, 1.0, cache="cold"),
        record("dense", 1, 1.0, machine="other"),
        record("2:4", 1, 1.0),
    ]
    assert len(crosscheck(Fixed(name="fixed"), others).speed_ups()) == 0


def test_rows_are_one_per_dtype_and_kernel_and_by_size():
    check = crosscheck(Fixed(name="fixed"), FOUR)
    assert [(r["dtype"], r["kernel"], r["records"]) for r in check.rows()] == [
        ("bfloat16", "2:4", 3), ("bfloat16", "dense", 3),
    ]  # fmt: skip
    assert [(r["kernel"], r["measured"], r["records"]) for r in check.size_rows()] == [
        ("2:4", "> 2 ms", 3), ("dense", "> 2 ms", 3),
    ]  # fmt: skip


def test_what_cannot_be_priced_is_counted_with_its_reason():
    records = [*FOUR, record("csr", 1, 1.0)]
    check = crosscheck(Fixed(name="fixed"), records)
    assert check.skipped == {"kernel 'csr' is not modelled (valid: 2:4, dense)": 1}
    with pytest.raises(InputError, match=r"prices none of the records .*csr"):
        crosscheck(Fixed(name="fixed"), records[-1:])
    with pytest.raises(InputError, match="no records"):
        crosscheck(Fixed(name="fixed"), [])


def test_a_gpu_prices_what_was_timed_with_packing_only_where_it_was():
    a100 = load_device("a100")
    bare, packed = (record("2:4", 4096, 1e-3, n=4096, k=4096, packing=p) for p in (False, True))
    pairs = crosscheck(a100, [bare, packed]).pairs
    assert pairs[1].estimated_s > pairs[0].estimated_s
    skipped = crosscheck(a100, [bare, record("2:4", 64, 1e-3, n=24)]).skipped
    assert list(skipped.values()) == [1] and "multiples of 16×16" in next(iter(skipped))


@needs_bench
@pytest.mark.parametrize("gpu", sorted(CARDS))
def test_shipped_cards_stand_against_the_public_bench(gpu):
    records = [r for r in bench_records(gpu) if r.dtype == "bfloat16"]
    check = crosscheck(load_device(CARDS[gpu]), records)
    assert check.time_mape("dense") <= 0.06 and check.time_mape("2:4") <= 0.06
    assert check.speed_up_mape() <= 0.07 and check.speed_up_tau() >= 0.72
    assert check.fastest_hit_rate() >= 0.9
    assert check.coverage() >= 0.75
