"""The report in headless Chromium: what scripts draw, on a wide screen and on a phone."""

import json
import re
import shutil
import subprocess

import pytest
from hand_made import contenders

from analysis.reporting.report import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium; installed by: apt-get install chromium"
)

PROBE = """<script>
window.onload = () => setTimeout(() => {
  const chart = document.querySelector(".chart"), box = chart.getBoundingClientRect();
  const found = { wide: document.documentElement.scrollWidth, seen: window.innerWidth };
  found.lines = [...document.querySelectorAll(".chart")].map((c) =>
    c.querySelectorAll("polyline").length);
  found.dashes = new Set([...chart.querySelectorAll("polyline")].map((l) =>
    l.getAttribute("stroke") + l.getAttribute("stroke-dasharray"))).size;
  found.still = [...document.querySelectorAll(".static")].filter((f) => !f.hidden).length;
  chart.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true }));
  found.said = document.querySelector(".said").textContent;
  document.querySelectorAll("fieldset input")[0].click();
  found.fewer = chart.querySelectorAll("polyline").length;
  const buttons = [...document.querySelectorAll("figure button")];
  buttons.find((b) => b.textContent === "Zoom in").click();
  found.zoomed = document.querySelector("figure h3").textContent;
  const name = document.querySelector("select");
  name.value = "wafer"; name.dispatchEvent(new Event("change"));
  found.titles = [...document.querySelectorAll("#charts h3")].map((h) => h.textContent);
  URL.createObjectURL = (blob) => { blob.text().then((t) => (found[blob.type] = t)); return "#"; };
  buttons.find((b) => b.textContent === "SVG").click();
  [...document.querySelectorAll("button")].find((b) => b.textContent === "CSV").click();
  setTimeout(() => {
    const said = document.createElement("pre");
    said.id = "probe"; said.textContent = JSON.stringify(found); document.body.append(said);
  }, 200);
}, 300);
</script>"""


def browse(page, tmp_path, width, *more):
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u",
         "--virtual-time-budget=4000", f"--window-size={width},1000", *more, file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def page():
    return report(contenders(), "Runs </script> & more")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 500])
def test_it_can_be_looked_into(page, tmp_path, width):
    # A window of Chromium is at least 500 wide; the phone's width is that of a frame in it.
    found = browse(page.replace("</body>", PROBE + "</body>"), tmp_path, width, "--dump-dom")
    probe = json.loads(
        re.search(r'<pre id="probe">(.*?)</pre>', found, re.DOTALL)[1]
        .replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )  # fmt: skip
    assert probe["wide"] <= probe["seen"]
    assert probe["lines"] == [5, 5]
    assert probe["dashes"] == 5
    assert probe["still"] == 0
    assert "RigL 20 %" in probe["said"] and re.match(r"\d+: ", probe["said"])
    assert probe["fewer"] == 4
    assert probe["zoomed"].endswith("(part)")
    assert probe["titles"][1] == "Validation loss by net training time on wafer"
    lines = probe["text/csv"].splitlines()
    assert lines[0].startswith("run,step,validation_loss,ideal_s,ideal_low_s,ideal_high_s,wafer_s")
    assert len(lines) == 1 + 4 * 11
    assert 'xmlns="http://www.w3.org/2000/svg"' in probe["image/svg+xml"]
    assert "var(" not in probe["image/svg+xml"]


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways(page, tmp_path):
    (tmp_path / "inner.html").write_text(page, encoding="utf-8")
    frame = (
        '<iframe id="f" src="inner.html" style="width:390px;height:900px"></iframe><script>'
        'onload = () => setTimeout(() => { const d = document.getElementById("f").contentDocument;'
        'document.title = d.documentElement.scrollWidth + " " +'
        'd.querySelectorAll(".chart polyline").length; }, 500)</script>'
    )
    found = browse(frame, tmp_path, 800, "--dump-dom", "--allow-file-access-from-files")
    wide, curves = map(int, re.search(r"<title>(\d+) (\d+)</title>", found).groups())
    assert (wide <= 390, curves) == (True, 10)


def test_without_scripts_every_figure_is_there(page):
    assert page.count('class="static"') == 2
    assert not re.search(r'class="static"[^>]*hidden', page)
    assert len(page.encode()) < 2_000_000
