"""The report in a headless Chromium: at the width of a phone and of a desk, opened from disk."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conseq.report import report

Write = Callable[[Path, list[dict[str, Any]]], Path]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 1280)

pytestmark = pytest.mark.slow

# The reading of a page, from a page around it: with all details open, what does it measure and what failed to load?
HARNESS = """<!doctype html><meta charset="utf-8"><title>reading</title><body><pre id="found"></pre><script>
const asked = %s, found = [];
function read(address, width) {
  return new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.style.cssText = `width:${width}px;height:800px;border:0`;
    frame.onload = async () => {
      const page = frame.contentDocument;
      for (const one of page.querySelectorAll("details")) one.open = true;
      const images = [...page.images];
      await Promise.all(images.map((one) => one.decode().catch(() => 0)));
      const root = page.documentElement, wide = [];
      for (const one of page.body.querySelectorAll("*")) {
        const over = one.getBoundingClientRect().right - width;
        if (over > 0.5 && !one.closest(".scroll, .skip")) wide.push(one.outerHTML.slice(0, 120));
      }
      found.push({
        address, width, title: page.title, overflow: root.scrollWidth - root.clientWidth, wide: wide.slice(0, 3),
        broken: images.filter((one) => !one.naturalWidth).map((one) => one.src), images: images.length,
        smallest: Math.min(...images.map((one) => one.getBoundingClientRect().width), 9999),
        text: page.body.innerText.length, styled: getComputedStyle(root.querySelector("body")).margin,
      });
      frame.remove();
      done();
    };
    frame.src = address;
    document.body.append(frame);
  });
}
(async () => {
  for (const [address, width] of asked) await read(address, width);
  document.getElementById("found").textContent = JSON.stringify(found);
  document.title = "done";
})();
</script></body>"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: its document at the end, and the lines of its console."""

    document: str
    console: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium: install one, or name it in CHROMIUM (looked for {', '.join(NAMES)})")
    return found


@pytest.fixture(scope="module")
def look(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Seen]:
    profile = tmp_path_factory.mktemp("profile")

    def at(page: Path, *options: str) -> Seen:
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={profile}"),
            *("--virtual-time-budget=60000", *options, "--dump-dom", page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=180, check=True)
        return Seen(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])

    return at


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    experiments: Path,
    all_records: list[dict[str, Any]],
    toy: Path,
    write_lines: Write,
) -> Path:
    root = tmp_path_factory.mktemp("browsed")
    lines = write_lines(root / "all.jsonl", all_records)
    return report([lines, toy / "runs"], root / "site", experiments=experiments, data=toy / "data").parent


def readings(look: Callable[..., Seen], pages: list[Path], folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Gives what pages measure at each width, and the lines of the console."""
    around = folder / "around.html"
    asked = [[page.as_uri(), width] for page in pages for width in WIDTHS]
    around.write_text(HARNESS % json.dumps(asked), encoding="utf-8")
    seen = look(around, "--allow-file-access-from-files", "--window-size=1400,900")
    found = re.search(r'<pre id="found">(.*?)</pre>', seen.document, re.DOTALL)
    assert found is not None
    assert found[1], "the browser stopped before the pages were read"
    return json.loads(html.unescape(found[1])), seen.console


def test_every_page_renders_at_the_width_of_a_phone_and_of_a_desk(
    look: Callable[..., Seen], site: Path, tmp_path: Path
) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) == 6
    found, console = readings(look, pages, tmp_path)
    assert len(found) == len(pages) * len(WIDTHS)
    for one in found:
        where = f"{one['address']} at {one['width']}"
        assert (one["overflow"], one["wide"], one["broken"]) == (0, [], []), where
        assert one["title"].endswith("conseq report"), where
        assert one["styled"] == "0px", where
        assert one["text"] > 200, where
        assert one["smallest"] >= 300, where
    assert sum(one["images"] for one in found) > 30
    assert console == []


def test_a_page_opened_from_disk_says_nothing_on_the_console(look: Callable[..., Seen], site: Path) -> None:
    for name in ("index.html", "importances.html"):
        seen = look(site / name)
        assert seen.console == []
        assert "<title>broken" not in seen.document
        assert "</main>" in seen.document


def test_the_reading_would_tell_of_a_page_that_is_too_wide_or_broken(look: Callable[..., Seen], tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<div style="width:900px">x</div><img src="none.svg" alt=""><script>nothing()</script>')
    found, console = readings(look, [bad], tmp_path)
    phone = found[0]
    assert phone["overflow"] > 500
    assert phone["broken"]
    assert any("nothing is not defined" in line for line in console)
