"""The page of a grid: as text, and with its sliders moved in headless Chromium."""

import json
import re
import shutil
import subprocess

import pytest

from analysis.estimating.what_if import Cell, Grid
from analysis.reporting.report import what_if

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def cells(*seconds):
    return tuple(Cell(s, 0.9 * s, 1.1 * s, "memory", i == 0) for i, s in enumerate(seconds))


GRID = Grid(
    "net </script>", ("zen3", "wafer"), "samples",
    {2: cells(1.0, 2.0), 8: cells(4.0, 8.0)},
    {(batch, pattern, density): cells(batch * density, 2 * batch * density)
     for batch in (2, 8) for pattern, density in (("unstructured", 0.1), ("unstructured", 0.5),
                                                  ("2:4", 0.5))},
    {("unstructured", 0.1): 0.1, ("unstructured", 0.5): 0.5, ("2:4", 0.5): 0.5},
)  # fmt: skip


def test_without_scripts_all_of_the_middle_batch_is_a_table():
    page = what_if(GRID)
    assert "<td>unstructured 10 %</td><td>5.0×</td><td>5.0×</td>" in page
    assert "<td>2:4 50 %</td><td>1.0×</td><td>1.0×</td>" in page
    assert "wafer *" in page and "zen3 *" not in page and "unverified" in page
    assert "net </script>" not in page
    assert not re.search(r'(src|href)="http', page)


PROBE = """<script>
window.onload = () => setTimeout(() => {
  const root = document.getElementById("what-if"), read = () => ({
    said: root.querySelector(".said").textContent,
    outputs: [...root.querySelectorAll("output")].map((o) => o.textContent),
    first: [...root.querySelectorAll("tbody tr")].map((r) => r.textContent),
    lines: root.querySelectorAll("polyline").length,
  });
  const moved = (what, value, kind) => { what.value = value; what.dispatchEvent(new Event(kind)); };
  const found = { wide: document.documentElement.scrollWidth, seen: window.innerWidth };
  const sliders = [...root.querySelectorAll("input[type=range]")];
  found.before = read();
  moved(sliders[0], 1, "input"); found.denser = read();
  moved(sliders[1], 0, "input"); found.fewer = read();
  moved(root.querySelector("select"), 1, "change"); found.pattern = read();
  found.stuck = sliders[0].disabled;
  const said = document.createElement("pre");
  said.id = "probe"; said.textContent = JSON.stringify(found); document.body.append(said);
}, 200);
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium; installed by: apt-get install chromium")
@pytest.mark.parametrize("width", [1400, 500])
def test_sliders_change_what_is_said(tmp_path, width):
    file = tmp_path / "page.html"
    file.write_text(what_if(GRID).replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u",
         "--virtual-time-budget=4000", f"--window-size={width},1000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]
    probe = json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert probe["wide"] <= probe["seen"]
    assert probe["before"]["outputs"] == ["", "10 %", "8 samples"]
    assert probe["before"]["first"][0].startswith("zen35×4 s800 ms")
    assert probe["before"]["first"][1].startswith("wafer *5×")
    assert "5 times" in probe["before"]["said"] and probe["before"]["lines"] == 2
    assert probe["denser"]["outputs"] == ["", "50 %", "8 samples"]
    assert "On none" in probe["denser"]["said"]
    assert probe["fewer"]["outputs"] == ["", "50 %", "2 samples"]
    assert probe["fewer"]["first"][0].startswith("zen31×1 s1 s")
    assert probe["stuck"] and probe["pattern"]["outputs"] == ["", "50 %", "2 samples"]
