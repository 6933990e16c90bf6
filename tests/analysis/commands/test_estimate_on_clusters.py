"""`nettime estimate --gpus`: what the command says of many cards."""

import json

import pytest

SMALL = ("estimate", "bert-tiny", "--batch-size", "2", "--sequence-length", "16", "--dtype",
         "bfloat16", "--gpus", "8")  # fmt: skip


def test_a_plan_dense_and_sparse(nettime):
    shown = nettime(*SMALL, "--parallel", "fsdp,values=1", "--density", "0.1")
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    words = " ".join(shown.out.split())
    assert "fsdp, dp=8," in words and "With fewer cards" in words
    assert "At density 10 % a sample takes" in words


def test_values_alone_are_less_than_all(nettime):
    def sent(carry):
        found = nettime(*SMALL, "--parallel", f"fsdp{carry}", "--density", "0.1", "--json").json
        return [found["plans"][kind][0]["sent_bytes"] for kind in ("dense", "sparse")]

    assert sent("")[0] == sent("")[1] == sent(",values=1")[0] > sent(",values=1")[1]


def test_mask_updates_are_counted_with_their_collectives(nettime):
    def found(*more):
        return nettime(*SMALL, "--parallel", "fsdp,values=1", "--json", *more).json["densities"][1]

    still = found()
    rigl = found("--algorithm", "rigl", "--update-interval", "10")
    rare = found("--algorithm", "rigl", "--update-interval", "1000")
    assert still["growth_step_seconds"] is None
    assert still["seconds"] < rare["seconds"] < rigl["seconds"] < rigl["growth_step_seconds"]
    assert rigl["seconds"] == pytest.approx(
        0.9 * still["seconds"] + 0.1 * rigl["growth_step_seconds"]
    )


def test_densities_beside_each_other_and_a_whole_run(nettime):
    asked = (*SMALL, "--parallel", "fsdp,values=1", "--sweep", "0.5,0.1", "--steps", "1000")
    found = nettime(*asked, "--json").json
    dense, *sparse = found["densities"]
    assert [one["density"] for one in sparse] == [0.1, 0.5]
    for one in (dense, *sparse):
        assert one["run_seconds"] == pytest.approx(1000 * one["seconds"])
        assert one["equal_time_gpus"] is None or one["equal_time_gpus"] <= 8
    gradual = nettime(*asked, "--schedule", "gradual", "--json").json["densities"]
    for one, other in zip(sparse, gradual[1:], strict=True):
        assert min(one["run_seconds"], dense["run_seconds"]) * 0.999 < other["run_seconds"]
    assert "1,000 steps to density 10 %" in " ".join(nettime(*asked).out.split())


def test_a_search_holds_less_where_states_are_compact(nettime):
    def least(parallel):
        found = nettime(*SMALL, "--parallel", parallel, "--density", "0.1", "--json").json
        return min(plan["memory_bytes"] for plan in found["plans"]["sparse"])

    assert least("auto,compact=1") < least("auto")


def test_each_nth_layer_lies_between_none_and_all(nettime):
    def found(*more):
        one = nettime(*SMALL, "--parallel", "ddp", *more, "--json").json["plans"]["sparse"][0]
        return one["needs"]["activations"], one["compute_seconds"]

    plain, half, full = found(), found("--recompute", "full/2"), found("--recompute", "full")
    assert plain[0] > half[0] >= full[0] and plain[1] < half[1] < full[1]
    shown = nettime(*SMALL, "--recompute", "full/x")
    assert shown.code == 2 and "every: value is 'x'; allowed is an integer" in shown.err
    shown = nettime("estimate", "bert-tiny", "--recompute", "full")
    assert shown.code == 2 and "--recompute: needs --gpus" in shown.err


def test_fit_finds_the_batch_too(nettime, tmp_path):
    asked = ("estimate", "bert-tiny", "--sequence-length", "16", "--dtype", "bfloat16", "--gpus",
             "4", "--fit")  # fmt: skip
    cluster = tmp_path / "small.toml"
    link = ('bytes_per_s = { value = 1e11, unit = "B/s", source = "x" }\n'
            'latency_s = { value = 1e-6, unit = "s", source = "x" }\n'
            'share = { value = 0.9, unit = "1", source = "x" }\n')  # fmt: skip
    cluster.write_text(
        'device = "h100_sxm"\nnodes = 1\ncards_per_node = 4\n'
        'memory_bytes = { value = 1.5e8, unit = "B", source = "x" }\n'
        f"[inside]\n{link}[between]\n{link}"
    )
    found = nettime(*asked, "--cluster", str(cluster), "--json").json
    took = {one["batch"]: one["seconds_per_sample"] for one in found["batches"]}
    assert list(took) == [2**i for i in range(len(took))] and len(took) > 2
    assert all(a > b for a, b in zip([*took.values()][:-2], [*took.values()][1:-1], strict=True))
    best = min((b for b in took if took[b] is not None), key=lambda b: took[b])
    alone = nettime(*asked[:-1], "--parallel", "auto", "--batch-size", str(best), "--cluster",
                    str(cluster), "--json").json  # fmt: skip
    first = alone["plans"]["sparse"][0]
    assert first["seconds_per_sample_batch"] / best == pytest.approx(took[best])
    assert first == found["plans"]["sparse"][0]
    words = " ".join(nettime(*asked, "--cluster", str(cluster)).out.split())
    assert "a card is fastest of those that fit" in words and "Memory of a card" in words


def test_what_decides_is_said_layer_by_layer(nettime):
    shown = " ".join(nettime(*SMALL, "--pattern", "2:4", "--density", "0.5").out.split())
    assert "Kernels of one card for a micro-batch by itself" in shown
    assert "grad_input: mask is not 2:4 along the outputs" in shown


def test_fewer_bytes_of_moments_are_fewer_bytes_of_states(nettime):
    def states(optimizer):
        found = nettime(*SMALL, "--parallel", "ddp", "--optimizer", optimizer, "--json").json
        return found["plans"]["dense"][0]["state_bytes"]

    sgd, small, whole = states("sgd"), states("adamw8bit"), states("adamw")
    assert sgd < small < whole
    assert (small - sgd) / (whole - sgd) == pytest.approx(2 / 8)


def test_a_trace_opens_as_json(nettime, tmp_path):
    trace = tmp_path / "new folder" / "t.json"
    nettime(*SMALL, "--parallel", "tp=2", "--trace", str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {
        "card.rank-0", "card.rank-1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--parallel", "auto,tp=2"), "auto searches tp itself"),
        (("--parallel", "fsdp,valeus=1"), "valeus"),
        (("--steps", "0"), "--steps: value is 0"),
        (("--steps", "5", "--schedule", "slow"), "--schedule"),
        (
            ("--plot", "x.svg", "--sweep", "0.1"),
            "--plot: cannot be combined with --explain or --gpus",
        ),
    ],
)
def test_bad_input_is_one_line(nettime, more, said):
    shown = nettime(*SMALL, *more)
    assert shown.code == 2 and said in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_whole_runs_need_cards(nettime):
    shown = nettime("estimate", "bert-tiny", "--steps", "5")
    assert shown.code == 2 and "--fit, --steps: need --gpus" in shown.err


def test_a_single_device_has_a_trace_too(nettime, tmp_path):
    asked = ("estimate", "bert-tiny", "--batch-size", "2", "--sequence-length", "16", "-d",
             "ideal", "-d", "wafer")  # fmt: skip
    found = nettime(*asked, "--trace", str(tmp_path / "t.json"), "--json").json
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    took = [e["dur"] for e in events if e.get("args", {}).get("cycles") and e["ts"] == 0.0]
    for device in found["devices"]:
        seconds = device["total"]["sparse"]["seconds"]
        assert any(d == pytest.approx(1e6 * seconds) for d in took)
    shown = nettime(*asked, "--trace", "t.json", "--sweep", "0.1,0.5")
    assert shown.code == 2 and "--trace: cannot be combined with --sweep" in shown.err
