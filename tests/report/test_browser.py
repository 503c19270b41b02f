"""The page in a real browser: it fits a phone and a desk, follows light and dark, sorts, filters and prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
from matplotlib.image import imread

from recbench.report.figures.style import DARK, PALETTE
from tests.report.given import study
from tests.report.test_html import Tree, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
PHONE, DESK = 390, 1280
SCHEMES = {"light": ("1", PALETTE), "dark": ("0", DARK)}
"""Chromium's number for it, and the page's colours."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("browser")
    study(home / "runs", ("beauty",), n=300)
    (home / "page.html").write_text(page(home / "runs"), encoding="utf-8")
    return home / "page.html"


def browse(file: Path, *arguments: str, width: int = DESK, height: int = 900) -> subprocess.CompletedProcess[str]:
    base = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={file.parent / 'profile'}",
    ]
    size = [f"--window-size={width},{height}", "--virtual-time-budget=4000"]
    command = [str(CHROMIUM), *base, *size, *arguments, f"file://{file}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def told(file: Path, script: str, width: int = DESK) -> object:
    """What a script finds on the page: it runs in a copy without the policy that would forbid it.

    The copy stands in a frame, because a window of Chromium is never narrower than 500 pixels.
    """
    text = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", file.read_text(encoding="utf-8"))
    asked = f"<script>document.title = JSON.stringify((() => {{ {script} }})());</script></body>"
    copy, frame = file.with_name("asked.html"), file.with_name("frame.html")
    copy.write_text(text.replace("</body>", asked), encoding="utf-8")
    read = "document.title = this.contentDocument.title"
    frame.write_text(
        f'<!DOCTYPE html><html><head><title></title></head><body style="margin: 0"><iframe src="{copy.name}" '
        f'style="border: 0; width: {width}px; height: 900px" onload="{read}"></iframe></body></html>',
        encoding="utf-8",
    )
    found = browse(frame, "--allow-file-access-from-files", "--dump-dom", width=max(width, 600)).stdout
    return json.loads(Tree(found).root.all("title")[0].whole_text)


def test_the_page_runs_without_a_word_on_the_console(file: Path) -> None:
    done = browse(file, "--enable-logging=stderr", "--v=0", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "Uncaught" not in done.stderr
    root = Tree(done.stdout).root
    buttons = [b for t in root.all("table") if t.attributes["id"] == "table-beauty" for b in t.all("button")]
    assert len(buttons) == 8, "the script ran under the page's policy"
    assert all(b.attributes["type"] == "button" for b in buttons)
    assert root.all("input")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_sticks_out_of_the_page_and_wide_tables_scroll_in_their_own_box(file: Path, width: int) -> None:
    script = """
    const view = document.documentElement.clientWidth, out = [];
    for (const e of document.querySelectorAll("main *, header *")) {
      if (e.closest(".scroll") && !e.matches(".scroll") || e.closest(".unseen, svg, .skip")) continue;
      if (e.getBoundingClientRect().right > view + 1) out.push(e.tagName + "." + e.className);
    }
    const boxes = [...document.querySelectorAll(".scroll")];
    return {view, page: document.documentElement.scrollWidth, out,
            scrolling: boxes.filter((b) => b.scrollWidth > b.clientWidth + 1).length,
            unreachable: boxes.filter((b) => b.tabIndex !== 0).length};
    """
    found = told(file, script, width=width)
    assert isinstance(found, dict)
    assert found["view"] == width
    assert found["page"] <= width
    assert found["out"] == []
    assert found["unreachable"] == 0, "a box that scrolls can be scrolled by keyboard"
    if width == PHONE:
        assert found["scrolling"] > 0


def test_text_on_a_phone_is_large_enough_to_read(file: Path) -> None:
    script = """
    const sizes = [...document.querySelectorAll("p, li, td, th, dd, summary")].map((e) => parseFloat(getComputedStyle(e).fontSize));
    const scale = (svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const drawn = [...document.querySelectorAll("figure svg")].filter((s) => s.getBoundingClientRect().width > 0);
    const size = (s, t) => scale(s) * parseFloat(getComputedStyle(t).fontSize);
    const texts = drawn.flatMap((s) => [...s.querySelectorAll("text")].map((t) => size(s, t)));
    return {text: Math.min(...sizes), figures: Math.min(...texts), n: texts.length};
    """
    found = told(file, script, width=PHONE)
    assert isinstance(found, dict)
    assert found["text"] >= 12
    assert found["n"] > 50
    assert found["figures"] >= 9


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_screenshot_has_the_colours_of_its_scheme(file: Path, scheme: str, width: int) -> None:
    number, palette = SCHEMES[scheme]
    shot = file.with_name(f"{scheme}-{width}.png")
    browse(file, f"--blink-settings=preferredColorScheme={number}", f"--screenshot={shot}", width=width, height=2000)
    pixels = np.round(255 * imread(shot)[:, :, :3]).astype(int)
    assert pixels.shape[1] == width
    paper, ink = (np.array([int(palette[name][i : i + 2], 16) for i in (1, 3, 5)]) for name in ("paper", "ink"))
    assert (np.abs(pixels[:, :4] - paper).max()) <= 2, "the margin is paper"
    assert (np.abs(pixels - paper).max(axis=2) <= 2).mean() > 0.6
    assert (np.abs(pixels - ink).max(axis=2) <= 8).mean() > 0.001, "there is text"


def test_a_heading_sorts_and_says_so_and_the_filter_counts(file: Path) -> None:
    script = """
    const table = document.getElementById("table-beauty"), head = table.tHead.rows[0].cells[2];
    const names = () => [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[0].textContent);
    const values = () => [...table.tBodies[0].rows].map((r) => parseFloat(r.cells[2].textContent));
    const before = names(), found = {before};
    for (const turn of ["first", "second", "third"]) {
      head.querySelector("button").click();
      found[turn] = {sort: head.getAttribute("aria-sort"), values: values(), names: names()};
    }
    const input = table.closest(".grid").querySelector("input");
    input.value = "sasrec pause"; input.dispatchEvent(new Event("input"));
    found.filtered = names(); found.told = table.closest(".grid").querySelector("output").textContent;
    return found;
    """
    found = told(file, script)
    assert isinstance(found, dict)
    assert found["first"]["sort"] == "descending"
    assert found["first"]["values"] == sorted(found["first"]["values"], reverse=True)
    assert found["second"]["sort"] == "ascending"
    assert found["second"]["values"] == sorted(found["first"]["values"])
    assert found["third"]["sort"] is None
    assert found["third"]["names"] == found["before"]
    assert found["filtered"] == ["sasrec+pause"]
    assert found["told"] == "1 of 8"


def test_everything_that_acts_is_reached_by_keyboard_and_has_a_name(file: Path) -> None:
    script = """
    const acts = [...document.querySelectorAll("a, button, input, summary, .scroll")];
    const words = (e) => (e?.textContent || "").trim();
    const named = (e) => words(e) || e.getAttribute("aria-labelledby") || words(e.closest("label"));
    const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((h) => Number(h.tagName[1]));
    return {hidden: acts.filter((e) => e.tabIndex < 0).length, unnamed: acts.filter((e) => !named(e)).map((e) => e.outerHTML),
            jumps: levels.filter((l, i) => i && l > levels[i - 1] + 1).length, tops: levels.filter((l) => l === 1).length,
            lang: document.documentElement.lang, n: acts.length};
    """
    found = told(file, script)
    assert isinstance(found, dict)
    assert found["n"] > 30
    assert (found["hidden"], found["unnamed"], found["jumps"], found["tops"], found["lang"]) == (0, [], 0, 1, "en")


def test_the_page_prints(file: Path) -> None:
    printed = file.with_name("page.pdf")
    browse(file, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    data = printed.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 2
