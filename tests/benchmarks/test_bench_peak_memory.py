"""Peak memory against torch's profiler on this CPU."""

import pytest

from benchmarks.bench_peak_memory import models, profiled_peak
from sparse_train.workload import workload

# oneDNN's recurrent layers keep a workspace that torch does not tell of.
MODELS = [m for m in models() if m[0] != "recurrent"]


@pytest.mark.parametrize(("name", "model", "batch"), MODELS, ids=[m[0] for m in MODELS])
def test_the_peak_is_within_five_percent_of_the_profilers(name, model, batch):
    seen = profiled_peak(model, batch)
    assert workload(model, batch, machine="cpu").peak_bytes == pytest.approx(seen, rel=0.05)


def test_a_gpu_needs_less_since_attention_and_dropout_are_one_kernel_each():
    _, encoder, batch = MODELS[1]
    assert (
        workload(encoder, batch).peak_bytes
        < 0.8 * workload(encoder, batch, machine="cpu").peak_bytes
    )
