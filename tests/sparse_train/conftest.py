"""Text and caches that tests share; lets tests of these folders import `_tiny_run` and its like."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import _tiny_run


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory):
    """No test touches the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory, cache_home):
    return _tiny_run.write_text(tmp_path_factory.mktemp("corpus") / "text")
