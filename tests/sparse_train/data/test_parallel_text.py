"""Parallel text in each of its forms."""

from __future__ import annotations

import gzip
import struct
import zipfile

import pytest

from hwsim import InputError
from sparse_train.data import parallel_text
from sparse_train.data.gettext_catalogue import read_catalogue
from sparse_train.data.parallel_text import load_parallel

LANGUAGES = ("en", "de")
PAIRS = [(f"sentence number {i}", f"Satz Nummer {i}") for i in range(80)]


def write_mo(path, pairs, charset="UTF-8", order="<"):
    """A compiled catalogue as msgfmt writes it."""
    entries = sorted([("", f"Content-Type: text/plain; charset={charset}\n"), *pairs])
    raw = [[text.encode(charset) for text in pair] for pair in entries]
    at = 28 + 16 * len(raw)
    tables, blob = [b"", b""], b""
    for side in (0, 1):
        for pair in raw:
            tables[side] += struct.pack(order + "2I", len(pair[side]), at + len(blob))
            blob += pair[side] + b"\0"
    head = struct.pack(order + "7I", 0x950412DE, 0, len(raw), 28, 28 + 8 * len(raw), 0, 0)
    path.write_bytes(head + tables[0] + tables[1] + blob)
    return path


def as_lines(side):
    return "".join(pair[side] + "\n" for pair in PAIRS)


def test_every_form_gives_the_same_pairs(tmp_path):
    table = "".join(f"{a}\t{b}\n" for a, b in PAIRS)
    (tmp_path / "two.tsv").write_text(table)
    (tmp_path / "many.txt").write_text(table.replace("\n", "\tCC-BY\n"))
    (tmp_path / "tatoeba.tsv").write_text(
        "".join(f"{i}\t{a}\t{i + 9}\t{b}\n" for i, (a, b) in enumerate(PAIRS))
    )
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "c.en").write_text(as_lines(0))
    (tmp_path / "c.de").write_text(as_lines(1))
    folder = tmp_path / "wmt"
    folder.mkdir()
    (folder / "x.en.gz").write_bytes(gzip.compress(as_lines(0).encode()))
    (folder / "x.de").write_text(as_lines(1))
    with zipfile.ZipFile(tmp_path / "opus.zip", "w") as archive:
        archive.writestr("README", "words")
        archive.writestr("A.de-en.en", as_lines(0))
        archive.writestr("A.de-en.de", as_lines(1))
    write_mo(tmp_path / "de.mo", PAIRS)
    (tmp_path / "de.po").write_text("".join(f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in PAIRS))
    locale = tmp_path / "locale"
    (locale / "de" / "LC_MESSAGES").mkdir(parents=True)
    write_mo(locale / "de" / "LC_MESSAGES" / "program.mo", PAIRS)
    names = ["two.tsv", "many.txt", "tatoeba.tsv", "t.tsv.gz", "c", "wmt", "opus.zip", "de.mo",
             "de.po", "locale"]  # fmt: skip
    found = [load_parallel(str(tmp_path / name), LANGUAGES) for name in names]
    both = f"{tmp_path / 'c.en'}, {tmp_path / 'c.de'}"
    found.append(load_parallel(both, LANGUAGES))
    assert all(text.pairs == tuple(sorted(PAIRS)) for text in found)
    assert len({text.digest for text in found}) == 1


def test_catalogues_are_read_in_both_directions(tmp_path):
    write_mo(tmp_path / "de.mo", PAIRS)
    turned = load_parallel(str(tmp_path / "de.mo"), ("de", "en"))
    assert set(turned.pairs) == {(b, a) for a, b in PAIRS}


def test_splits_are_disjoint_in_the_words_of_the_source(tmp_path):
    rows = [f"{a}{end}\t{b} {i}\n" for a, b in PAIRS for i, end in enumerate(["", "!", " ..."])]
    (tmp_path / "t.tsv").write_text("".join(rows))
    text = load_parallel(str(tmp_path / "t.tsv"), LANGUAGES)
    words = [{a.strip(" .!") for a, _ in text.split(s)} for s in ("train", "validation", "test")]
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    assert sum(map(len, words)) == 80


def test_empty_untranslated_and_repeated_pairs_are_left_out_and_counted(tmp_path):
    extra = "same\tsame\n\tleer\nempty\t \nsentence number 1\tetwas anderes\n"
    (tmp_path / "t.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS) + extra)
    text = load_parallel(str(tmp_path / "t.tsv"), LANGUAGES)
    assert text.pairs == tuple(sorted(PAIRS)) and text.n_read - len(text.pairs) == 4


def test_a_part_of_the_pairs_does_not_depend_on_the_others(tmp_path):
    (tmp_path / "t.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    few = load_parallel(str(tmp_path / "t.tsv"), LANGUAGES, max_pairs=60)
    assert len(few.pairs) == 60 and set(few.pairs) < set(PAIRS)


def test_a_po_file_with_all_its_syntax(tmp_path):
    (tmp_path / "x.po").write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
        '# a remark\n#: file.c:3\n#, c-format\nmsgctxt "menu"\nmsgid "one \\"two\\"\\n"\n"\\t%s"\n'
        'msgstr "eins \\x41\\101"\n\n'
        '#, fuzzy\nmsgid "unsure"\nmsgstr "unsicher"\n\nmsgid "open"\nmsgstr ""\n'
        'msgid "file"\nmsgid_plural "files"\nmsgstr[0] "Datei"\nmsgstr[1] "Dateien"\n'
        '#~ msgid "old"\n#~ msgstr "alt"\n'
    )
    assert read_catalogue(tmp_path / "x.po") == [('one "two"\n\t%s', "eins AA"), ("file", "Datei")]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_mo_file_of_any_byte_order_and_charset(tmp_path, order):
    pairs = [("menu\x04size", "Größe"), ("file\0files", "Datei\0Dateien")]
    write_mo(tmp_path / "x.mo", pairs, "ISO-8859-1", order)
    assert read_catalogue(tmp_path / "x.mo") == [("file", "Datei"), ("size", "Größe")]


@pytest.mark.parametrize("kept", [5, 20, 30, 200, -5])
def test_a_truncated_mo_file_is_refused(tmp_path, kept):
    path = write_mo(tmp_path / "x.mo", PAIRS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="truncated"):
        read_catalogue(path)


@pytest.mark.parametrize("charset", ["no-such-charset", "rot13", "zlib"])
def test_a_charset_that_is_none_is_refused(tmp_path, charset):
    path = tmp_path / "x.po"
    path.write_text(f'msgid ""\nmsgstr "charset={charset}\\n"\nmsgid "a"\nmsgstr "b"\n')
    with pytest.raises(InputError, match="charset"):
        read_catalogue(path)


def test_a_wrongly_encoded_catalogue_is_refused(tmp_path):
    (tmp_path / "x.po").write_bytes('msgid "a"\nmsgstr "Größe"\n'.encode("latin-1"))
    with pytest.raises(InputError, match="not utf-8 at byte"):
        read_catalogue(tmp_path / "x.po")


def test_a_rule_for_plurals_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = "Plural-Forms: nplurals=2; plural=__import__('pathlib').Path('ran').touch();"
    (tmp_path / "y.po").write_text(f'msgid ""\nmsgstr "{rule}\\n"\nmsgid "a"\nmsgstr "b"\n')
    assert read_catalogue(tmp_path / "y.po") == [("a", "b")]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('msgid "a\nmsgstr "b"\n', "line 1: a string without"),
        ('msgid "a\\"\nmsgstr "b"\n', "line 1: a string without"),
        ("hello\n", "line 1: 'hello' is no part"),
        ('msgstr "b"\n', "line 1: msgstr out of place"),
        ('msgid "a"\nmsgstr "b"\nmsgstr "c"\n', "line 3: msgstr out of place"),
        ('msgid "a"\n', "truncated"),
    ],
)
def test_a_malformed_po_file_names_the_line(tmp_path, text, says):
    (tmp_path / "x.po").write_text(text)
    with pytest.raises(InputError, match=says):
        read_catalogue(tmp_path / "x.po")


def test_files_that_are_not_aligned_are_refused(tmp_path):
    (tmp_path / "c.en").write_text("a\nb\n")
    (tmp_path / "c.de").write_text("a\n")
    with pytest.raises(InputError, match=r"has 2 lines.*has 1"):
        load_parallel(str(tmp_path / "c"), LANGUAGES)


@pytest.mark.parametrize(
    ("text", "says"), [("one column\n", "line 1 has 1 columns"), ("a\tb\nc\n", "line 2 has 1")]
)
def test_a_table_with_wrong_columns_is_refused(tmp_path, text, says):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=says):
        load_parallel(str(tmp_path / "t.tsv"), LANGUAGES)


def test_what_is_missing_is_said_with_where_and_how(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no file corpus.en or corpus.en.gz in .*OPUS"):
        load_parallel("corpus", LANGUAGES)
    monkeypatch.setattr(parallel_text, "catalogue_folders", lambda: [tmp_path])
    with pytest.raises(InputError, match=rf"no gettext catalogue of 'de'.*{tmp_path}.*install"):
        load_parallel("catalogues", LANGUAGES)
    with pytest.raises(InputError, match="no catalogue of 'de' and no pair"):
        load_parallel(str(tmp_path), LANGUAGES)


def test_a_broken_catalogue_of_the_machine_is_left_out_and_counted(tmp_path, monkeypatch):
    messages = tmp_path / "de" / "LC_MESSAGES"
    messages.mkdir(parents=True)
    write_mo(messages / "good.mo", PAIRS)
    (messages / "bad.mo").write_bytes(b"no catalogue")
    monkeypatch.setattr(parallel_text, "catalogue_folders", lambda: [tmp_path])
    text = load_parallel("catalogues", LANGUAGES)
    assert (len(text.pairs), text.n_skipped) == (80, 1)


@pytest.mark.parametrize(
    ("languages", "says"),
    [(("en", "en"), "both"), (("en", "../x"), "not a code"), (("fr", "de"), "must be en")],
)
def test_languages_are_checked(languages, says):
    with pytest.raises(InputError, match=says):
        load_parallel("catalogues", languages)


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n")
    with pytest.raises(InputError, match="1 usable pairs"):
        load_parallel(str(tmp_path / "t.tsv"), LANGUAGES)
