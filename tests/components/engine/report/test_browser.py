"""The page in a real browser: offline, light, dark, and on a phone."""

import html
import re
import shutil
import subprocess

import pytest
from PIL import Image

from collabopt.components.engine.report.html import render_report

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_CHROMIUM = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # A screenshot does not wait for what another process paints, and sandboxed frames would get one.
    "--disable-features=IsolateSandboxedIframes",
)
# What switches `prefers-color-scheme` in a headless Chromium.
_DARK, _LIGHT = "--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"
# Measures the page in a frame of each width: a window cannot be narrower than 500 pixels.
_MEASURE = """
<!DOCTYPE html><body style="margin:0"><pre id="out"></pre><script>
const page = {page};
const out = [];
for (const width of [320, 400, 768, 1280]) {{
  const frame = document.createElement("iframe");
  frame.style = "border:0;height:900px;width:" + width + "px";
  frame.srcdoc = page;
  frame.onload = () => {{
    const inside = frame.contentDocument, root = inside.documentElement;
    const shown = [...inside.querySelectorAll("svg.chart")].filter(each => each.getBoundingClientRect().width > 0);
    const wide = [...inside.querySelectorAll("body *:not(.scroll *):not(svg *)")]
      .filter(each => each.getBoundingClientRect().right > width + 0.5).length;
    const smallest = Math.min(...shown.map(each => each.getBoundingClientRect().width / each.viewBox.baseVal.width));
    const leaves = inside.querySelector("table.leaves").parentElement;
    out.push([width, root.scrollWidth, wide, shown.length, inside.querySelectorAll("section").length,
              smallest.toFixed(2), leaves.scrollWidth - leaves.clientWidth].join(" "));
    document.getElementById("out").textContent = out.join("\\n");
  }};
  document.body.append(frame);
}}
</script>
"""

pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason=f"no browser here: none of {', '.join(_BROWSERS)}")


@pytest.fixture
def browse(tmp_path):
    """Opens a file without network and returns what Chromium prints."""

    def run(path, *flags):
        command = [_CHROMIUM, *_FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/profile"]
        done = subprocess.run(
            [*command, *flags, f"file://{path}"], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=True
        )
        return done.stdout

    return run


@pytest.fixture(params=["ships", "nothing"])
def page(request, make_case, tmp_path):
    policy = "" if request.param == "ships" else "goals: [{figure: packed_bytes, threshold: 1}]"
    path = tmp_path / "report.html"
    path.write_text(render_report(*make_case(policy, broken=["pqat"]).arguments), encoding="utf-8")
    return path


def test_the_rendered_page_has_its_sections(browse, page):
    dom = browse(page, "--dump-dom")
    sections = re.findall(r'<section id="([a-z]+)"', dom)
    assert sections[:6] == ["policy", "leaves", "tree", "pareto", "weights", "footprint"]
    # The browser's own parser had nothing to mend: pictures and tables are where they were put.
    written = page.read_text(encoding="utf-8")
    for tag in ("<svg", "<table", "<tr", "<td", "<th ", "<li", "<figure", "<path", "<text"):
        assert dom.count(tag) == written.count(tag), tag


def test_nothing_is_wider_than_the_page(browse, page, tmp_path):
    content = page.read_text(encoding="utf-8")
    measuring = tmp_path / "measure.html"
    quoted = repr(content).replace("</script", "<\\/script")
    measuring.write_text(_MEASURE.format(page=quoted), encoding="utf-8")
    dom = browse(measuring, "--dump-dom", "--virtual-time-budget=5000", "--window-size=1400,900")
    measured = html.unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.S).group(1)).splitlines()
    assert sorted(int(line.split()[0]) for line in measured) == [320, 400, 768, 1280]
    for line in measured:
        width, scrolled, too_wide, pictures, sections, scale, hidden = line.split()
        # The table of leaves is seen whole on a screen; on a phone one scrolls it.
        assert int(hidden) == 0 or int(width) < 1280, line
        assert int(scrolled) <= int(width), line
        assert int(too_wide) == 0, line
        assert int(pictures) >= 10 and int(sections) >= 9, line
        # Text of 12 pixels must not shrink below what can be read.
        assert float(scale) > 0.72, line


def test_light_and_dark(browse, page, tmp_path):
    pixels = {}
    for name, flag in (("light", _LIGHT), ("dark", _DARK)):
        shot = tmp_path / f"{name}.png"
        browse(page, flag, f"--screenshot={shot}", "--window-size=1280,2400")
        with Image.open(shot) as image:
            pixels[name] = [sum(image.convert("RGB").getpixel(place)) / 3 for place in ((3, 3), (1270, 2000))]
            # Text and lines stand out: the picture is not one colour.
            low, high = image.convert("L").getextrema()
            assert high - low > 150
    assert min(pixels["light"]) > 240
    assert max(pixels["dark"]) < 40


def test_it_works_in_a_sandboxed_frame(browse, page, tmp_path):
    """Kubeflow Pipelines shows HTML artifacts in one, with `srcdoc`, and nothing allowed."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe sandbox style="border:0;width:1000px;height:800px" '
        f'srcdoc="{html.escape(page.read_text(encoding="utf-8"))}"></iframe>',
        encoding="utf-8",
    )
    shots = []
    for name, path in (("framed", frame), ("plain", page)):
        shot = tmp_path / f"{name}.png"
        browse(path, _LIGHT, f"--screenshot={shot}", "--window-size=1000,800")
        with Image.open(shot) as image:
            shots.append(image.convert("L").resize((50, 40)).tobytes())
            assert image.convert("L").getextrema()[0] < 60, f"{name} is empty"
    differing = sum(abs(one - other) > 40 for one, other in zip(*shots, strict=True))
    assert differing < 40
