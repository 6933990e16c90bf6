"""Files that are whole or not there, whatever fails in the writing, and errors that stay a line."""

import errno
import os
from pathlib import Path

import pytest

from hwsim import InputError
from hwsim.files import remove_leftovers, replacing, watched


class Full:
    """A file whose disk fails the second time that it is needed."""

    def __init__(self, file):
        self._file, self.writes = file, 0

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._used()
        return self._file.write(data)

    def flush(self):
        self._used()
        self._file.flush()

    def _used(self):
        self.writes += 1
        if self.writes == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("second", ["write", "flush"])
def test_what_a_library_makes_of_a_failed_write_is_still_the_disks(second, tmp_path, monkeypatch):
    from pathlib import Path

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(real(self, *a, **k)))
    path = tmp_path / "state.pt"
    with (
        pytest.raises(InputError, match=r"state\.pt: cannot be written: Input/output error"),
        replacing(path) as part, watched(part) as file,
    ):  # fmt: skip
        file.write(b"one")
        try:
            file.write(b"two") if second == "write" else file.flush()
        except OSError:
            raise RuntimeError("unexpected pos 118400 vs 118292") from None
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_is_its_own(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as part, watched(part):
        _ = 1 / 0


def test_leftovers_of_one_file_are_removed_and_no_others(tmp_path):
    names = {".a.toml.12.ffff.part", ".b.toml.12.ffff.part", ".a.toml.lock", "a.toml"}
    for name in names:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, "a.toml")
    assert {p.name for p in tmp_path.iterdir()} == names - {".a.toml.12.ffff.part"}
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".a.toml.lock", "a.toml"}


@pytest.mark.parametrize("value", ["9" * 5000, "a\nb", "\x1b[2J", "\x9b1m", "é\r\n"])
def test_errors_are_one_line_of_bounded_length(value):
    text = str(InputError(f"name: value is {value}; allowed is less"))
    assert text.startswith("name: value is ") and text.endswith("; allowed is less")
    assert len(text) < 1600 and text.isprintable() and len(text.splitlines()) == 1


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_no_name_of_a_file(name):
    said = "cannot be written: it is a folder"
    with pytest.raises(InputError, match=said), replacing(Path(name)):
        raise AssertionError
