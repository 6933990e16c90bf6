"""How a process ends that has a CUDA build of torch loaded."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, types
from nettime._leaving import Leaving
leaving = Leaving()
import atexit, ctypes
atexit.register(lambda: print("python's ends,", end=""))
cuda = {cuda!r}
if cuda is not None:
    sys.modules["torch"] = types.SimpleNamespace(version=types.SimpleNamespace(cuda=cuda or None))
print("an answer,", end="")
{leave}
"""
# Whoever lets C's libraries end too ends by a signal.
ABORTS_IN_C = "libc = ctypes.CDLL(None); libc.on_exit(libc.abort, None); leaving.by(0)"


def left(cuda, leave):
    code = SCRIPT.format(cuda=cuda, leave=leave)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("cuda", [None, "", "13.0"])
@pytest.mark.parametrize("code", [0, 2, 130])
def test_codes_words_and_pythons_own_ends_are_kept(cuda, code):
    done = left(cuda, f"leaving.by({code})")
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == "an answer,python's ends,"


def test_an_exception_ends_as_always():
    done = left("13.0", "raise RuntimeError('mine')")
    assert done.returncode == 1
    assert "RuntimeError: mine" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="on_exit is glibc's")
def test_a_cuda_build_is_not_taken_apart_and_others_are():
    assert left("13.0", ABORTS_IN_C).returncode == 0
    assert left("", ABORTS_IN_C).returncode < 0
