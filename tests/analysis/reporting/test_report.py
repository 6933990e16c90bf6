import re
from html.parser import HTMLParser

import pytest
from hand_made import contender, contenders

from analysis.reporting.plots import COLOURS, inline_svg, loss_by_steps, styled
from analysis.reporting.report import report, write
from hwsim import InputError


@pytest.fixture(scope="module")
def page() -> str:
    return report(contenders(), "A <title>", ["A note & more."])


class Tags(HTMLParser):
    """Fails on a tag that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_asks_nothing_of_the_network(page):
    assert not re.search(r"(?:https?:)?//\w", page)
    assert not re.search(r"<(?:link|iframe|object|embed)\b|<script[^>]*\bsrc|@import", page)
    assert all(ref.startswith(("#", "data:")) for ref in re.findall(r'href="([^"]*)"', page))
    assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", page))


def test_the_report_names_every_run(page):
    for c in contenders():
        assert f"<td>{c.name}</td>" in page


def test_every_tag_is_closed(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []


def test_text_of_others_is_escaped(page):
    assert "A &lt;title&gt;" in page
    assert "<title>A <title>" not in page
    assert "A note &amp; more." in page


def test_colours_follow_the_page(page):
    body = page[page.index("<body>") :]
    for on_light, _ in COLOURS.values():
        assert on_light not in body.lower()
    assert "var(--vermilion)" in body


def test_the_report_has_each_section(page):
    for part in (
        "Net training time to the same validation loss", "Density of each layer",
        "Where the time of a step goes", "By layer and phase on wafer", "unverified",
    ):  # fmt: skip
        assert part in page


def test_the_same_runs_give_the_same_page(page):
    assert report(contenders(), "A <title>", ["A note & more."]) == page


def test_one_run_alone_has_a_report():
    page = report([contender("dense", "dense", 1e-3)], "One")
    assert "Validation loss against training steps" in page
    assert "Net training time to the same" not in page


def test_no_run_and_two_of_one_name_are_input_errors():
    with pytest.raises(InputError, match="at least one run"):
        report([], "none")
    with pytest.raises(InputError, match="two runs are called 'dense'"):
        report([contender("dense", "dense", 1e-3)] * 2, "twice")


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write("page", tmp_path / "file" / "report.html")


def test_writing_leaves_nothing_but_the_page(tmp_path):
    path = write("page", tmp_path / "report.html")
    assert path.read_text() == "page"
    assert list(tmp_path.iterdir()) == [path]


def test_an_inline_figure_has_its_labels_as_text():
    with styled():
        svg = inline_svg(loss_by_steps(contenders()))
    assert svg.startswith("<svg")
    assert "RigL 10 %" in svg
    assert "xmlns" not in svg
