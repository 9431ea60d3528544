"""How fast the pages are in a browser: of a run, of 10,000 cells made of its records, and the support site.

python benchmarks/report_page.py reports/journal.jsonl --site docs/data/support_*.json.xz

Prints the file's size, the seconds until the page is drawn, and the milliseconds from a letter in the filter to the
drawn result (median and largest of several queries). Needs playwright and a Chromium, Chrome or Edge; that of `npm ci`
will do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_hfaccel.backends.browser.browser import browser_for_reading
from pytest_hfaccel.core.results import CellResult
from pytest_hfaccel.reporting import read_journal
from pytest_hfaccel.reporting.evidence import read_evidence
from pytest_hfaccel.reporting.html import make_page, make_site_page
from pytest_hfaccel.upstream.transformers import documented_checkpoints

LIMITS = {"load_s": 2.0, "filter_ms": 100.0, "largest_filter_cpu_ms": 100.0, "bytes": 5_000_000}
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
SITE_QUERIES = (
    "b",
    "bert",
    "BertForMaskedLM",
    "google-bert/bert-base-uncased",
    "works on cpu but fails on openvino",
    "cause:exporter",
    "error>1e-6",
    "works everywhere",
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


def measure(browser: Any, path: Path, queries: Sequence[str] = QUERIES) -> dict[str, float]:
    loads, filters, cpu = [], [], []
    for _ in range(LOADS):
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready]")
        loads.append(time.perf_counter() - began)
        devtools = tab.context.new_cdp_session(tab)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        for query in queries:
            before = _task_seconds(devtools)
            filters.append(tab.evaluate(FILTER, query))
            cpu.append(1e3 * (_task_seconds(devtools) - before))
        tab.close()
    return {
        "bytes": path.stat().st_size,
        "load_s": statistics.median(loads),
        "filter_ms": statistics.median(filters),
        "largest_filter_ms": max(filters),
        "filter_cpu_ms": statistics.median(cpu),
        "largest_filter_cpu_ms": max(cpu),
    }


def _task_seconds(devtools: Any) -> float:
    """CPU time of all tasks of the page's main thread."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--site", nargs="+", type=Path, default=[], metavar="RUN", help="what `hfaccel site` is given")
    arguments = parser.parse_args()
    contents = read_journal(arguments.journal)
    header = {name: value for name, value in contents.header.items() if name in ("machine", "versions", "options")}
    is_right = True
    with browser_for_reading() as browser, tempfile.TemporaryDirectory() as folder:
        pages: list[tuple[str, int, Callable[[], str], Sequence[str]]] = [
            (name, len(results), partial(make_page, results, header), QUERIES)
            for name, results in (("this run", contents.results), ("ten thousand cells", many(contents.results)))
        ]
        if arguments.site:
            evidence = read_evidence(arguments.site)
            make_site = partial(make_site_page, evidence, documented_checkpoints())
            pages.append(("support site", len(evidence.records), make_site, SITE_QUERIES))
        for name, cells, make, queries in pages:
            path = Path(folder) / "index.html"
            began = time.perf_counter()
            path.write_text(make(), encoding="utf-8")
            written = time.perf_counter() - began
            found = measure(browser, path, queries)
            is_right &= all(found[limit] <= most for limit, most in LIMITS.items())
            print(
                f"{name}: {cells:,} cells, {found['bytes'] / 1e6:.2f} MB, made in {written:.1f} s, "
                f"loads in {found['load_s']:.2f} s, filters in {found['filter_ms']:.0f} ms "
                f"(largest {found['largest_filter_ms']:.0f} ms), of which CPU time {found['filter_cpu_ms']:.0f} ms "
                f"(largest {found['largest_filter_cpu_ms']:.0f} ms)"
            )
    raise SystemExit(0 if is_right else 1)


if __name__ == "__main__":
    main()
