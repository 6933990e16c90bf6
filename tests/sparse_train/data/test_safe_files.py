"""Files of strangers are read within bounds, and nothing else happens."""

from __future__ import annotations

import gzip
import zipfile

import pytest

from hwsim import InputError
from sparse_train.data import safe_files


def test_plain_and_gzip_files_have_the_same_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffein Wort\n".encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"ein Wort\n"))
    assert safe_files.read_text(tmp_path / "a.txt") == "ein Wort\n"
    assert safe_files.read_text(tmp_path / "a.txt.gz") == "ein Wort\n"


def test_a_file_beyond_the_limit_is_refused_packed_or_not(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 101)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 101))
    for name in ("a", "a.gz"):
        with pytest.raises(InputError, match="more than 100 bytes"):
            safe_files.read_bytes(tmp_path / name, limit_bytes=100)


@pytest.mark.parametrize("cut", [3, 10, 25])
def test_a_truncated_gzip_file_is_refused(tmp_path, cut):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(range(256)))[:cut])
    with pytest.raises(InputError, match="gzip"):
        safe_files.read_bytes(tmp_path / "a.gz")


@pytest.mark.parametrize(("content", "says"), [(b"ab\xff", "byte 2"), (b"a\0b", "zero byte")])
def test_what_is_no_text_is_refused(tmp_path, content, says):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=says):
        safe_files.read_text(tmp_path / "a")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        safe_files.read_bytes(tmp_path / "nowhere")


def _archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_members_are_read_in_memory(tmp_path):
    path = _archive(tmp_path / "a.zip", {"x/one.txt": b"1", "two.txt": b"22"})
    assert safe_files.zip_members(path) == ["x/one.txt", "two.txt"]
    assert safe_files.read_member(path, "two.txt") == b"22"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out", "/etc/passwd", "C:/x", "..\\out"])
def test_a_name_that_climbs_out_is_refused(tmp_path, name):
    path = _archive(tmp_path / "a.zip", {"fine": b"1", name: b"2"})
    with pytest.raises(InputError, match="climbs out"):
        safe_files.zip_members(path)
    with pytest.raises(InputError, match="climbs out"):
        safe_files.read_member(path, "fine")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = _archive(tmp_path / "a.zip", {"bomb": bytes(50 << 20)})
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="would unpack to 52428800"):
        safe_files.read_member(path, "bomb")


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = _archive(tmp_path / "a.zip", {"a": b"x" * 5000})
    content = path.read_bytes()
    honest, lie = (5000).to_bytes(4, "little"), (5).to_bytes(4, "little")
    path.write_bytes(content.replace(honest, lie))
    with pytest.raises(InputError, match="cannot be unpacked"):
        safe_files.read_member(path, "a")


@pytest.mark.parametrize("kept", [10, 60, -30])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = _archive(tmp_path / "a.zip", {"a": b"abc" * 100})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="zip archive"):
        safe_files.read_member(path, "a")


def test_a_member_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="has no 'b'"):
        safe_files.read_member(_archive(tmp_path / "a.zip", {"a": b""}), "b")


def test_a_member_that_lies_before_the_file_is_one_line(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"words " * 50)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    for place in range(at, at + 46):  # every byte of the directory's entry
        changed = bytearray(data)
        changed[place] = 0xFF
        path.write_bytes(changed)
        try:
            assert safe_files.read_member(path, "a.txt") == b"words " * 50
        except InputError as error:
            assert "\n" not in str(error)
    path.write_bytes(data[40:])
    with pytest.raises(InputError):
        safe_files.read_member(path, "a.txt")
