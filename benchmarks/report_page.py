"""How fast the page of a run is in a browser: a real run's journal, and 10,000 cells made of its records.

python benchmarks/report_page.py reports/journal.jsonl

Prints the file's size, the seconds until the page is drawn, and the milliseconds from a letter in the filter to the
drawn result (median and largest of several queries). Needs playwright and a Chromium, Chrome or Edge.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from pytest_hfaccel.backends.browser.installed import find_browser
from pytest_hfaccel.core.results import CellResult
from pytest_hfaccel.reporting import read_journal
from pytest_hfaccel.reporting.html import make_page

LIMITS = {"load_s": 2.0, "filter_ms": 100.0, "bytes": 5_000_000}
CELLS = 10_000
LOADS = 5
QUERIES = (
    "b",
    "be",
    "ber",
    "bert",
    "fails",
    "fails only on cpu",
    "check:parity",
    "error>1e-6",
    "all(status:passed)",
    "",
)
COLUMNS = [(device, dtype) for device in ("cpu", "openvino:CPU", "cuda:0", "webgpu") for dtype in ("fp32", "bf16")]

FILTER = """async query => {
    const input = document.querySelector('.search input');
    const drawn = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    await drawn();
    const began = performance.now();
    input.value = query;
    input.dispatchEvent(new Event('input', { bubbles: true }));
    await drawn();
    return performance.now() - began;
}"""


def many(results: list[CellResult]) -> list[CellResult]:
    """Repeat the cells of a run on other devices and under other names, with all their checks."""
    cells = [each for each in results if each.device != "class"]
    made: list[CellResult] = []
    while len(made) < CELLS:
        number, (device, dtype) = divmod(len(made), len(COLUMNS))[0], COLUMNS[len(made) % len(COLUMNS)]
        source = cells[number % len(cells)]
        model = f"{source.model}-{number // len(cells)}"
        cell = f"{model}-{device.lower().replace(':', '')}-{dtype}"
        made.append(replace(source, model=model, cell=cell, device=device, dtype=dtype))
    return made


def measure(browser: Any, path: Path) -> dict[str, float]:
    loads, filters = [], []
    for _ in range(LOADS):
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready]")
        loads.append(time.perf_counter() - began)
        filters += [tab.evaluate(FILTER, query) for query in QUERIES]
        tab.close()
    return {
        "bytes": path.stat().st_size,
        "load_s": statistics.median(loads),
        "filter_ms": statistics.median(filters),
        "largest_filter_ms": max(filters),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path)
    contents = read_journal(parser.parse_args().journal)
    header = {name: value for name, value in contents.header.items() if name in ("machine", "versions", "options")}
    program = find_browser()
    assert program is not None, "no Chromium, Chrome or Edge is installed"
    is_right = True
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        for name, results in (("this run", contents.results), ("ten thousand cells", many(contents.results))):
            path = Path(folder) / "index.html"
            began = time.perf_counter()
            path.write_text(make_page(results, header), encoding="utf-8")
            written = time.perf_counter() - began
            found = measure(browser, path)
            is_right &= all(found[limit] <= most for limit, most in LIMITS.items())
            print(
                f"{name}: {len(results):,} cells, {found['bytes'] / 1e6:.2f} MB, made in {written:.1f} s, "
                f"loads in {found['load_s']:.2f} s, filters in {found['filter_ms']:.0f} ms "
                f"(largest {found['largest_filter_ms']:.0f} ms)"
            )
        browser.close()
    raise SystemExit(0 if is_right else 1)


if __name__ == "__main__":
    main()
