"""A hundred cells in one browser: what each costs beside the page's own work, and what is left of them.

    python benchmarks/browser_cells.py [DEVICE] [CELLS]

A cell opens a page, makes a session of a small graph, runs it ten times and closes the page. Its time over that of the
page's own model load and runs must be at most 3 (the median); neither processes nor memory may grow over the cells.
"""

from __future__ import annotations

import statistics
import sys
import time

import psutil

CELLS = 100
RUNS = 10
SIZE = 512
LIMIT = 3.0


def main() -> int:
    import torch

    from pytest_hfaccel.backends.browser.backend import product_graph
    from pytest_hfaccel.backends.browser.browser import browser_for
    from pytest_hfaccel.backends.browser.installed import find_installation
    from pytest_hfaccel.backends.browser.runtime import BrowserRuntime
    from pytest_hfaccel.core.spec import Device

    device = Device(sys.argv[1] if len(sys.argv) > 1 else "wasm")
    cells = int(sys.argv[2]) if len(sys.argv) > 2 else CELLS
    browser = browser_for(find_installation(device))
    inputs = {"x": torch.ones(SIZE, SIZE)}
    program = product_graph(torch.eye(SIZE))
    browser.open_page().close()  # warm
    ratios, processes, resident = [], [], []
    for _ in range(cells):
        started, inside = time.perf_counter(), 0.0
        runtime = BrowserRuntime(browser, device, 1, inputs)
        graph = runtime.compile(program, device, "fp32", "Product")
        inside += next(iter(graph.sessions.values())).facts["seconds"]
        for _ in range(RUNS):
            graph.run(inputs)
            inside += runtime.run_seconds or 0.0
        runtime.close()
        ratios.append((time.perf_counter() - started) / inside)
        processes.append(len(browser.processes()))
        resident.append(sum(_resident(process) for process in browser.processes()) >> 20)
    ratio = statistics.median(ratios)
    print(f"{device}, {browser.version}: {cells} cells, time over the page's own {ratio:.2f} (at most {LIMIT})")
    print(f"processes: {processes[:3]} ... {processes[-3:]}; resident: {resident[0]} ... {resident[-1]} MiB")
    print(f"looked up elsewhere: {browser.server.refused or 'nothing'}")
    grown = max(processes[-10:]) > max(processes[:10]) + 1
    return int(ratio > LIMIT or grown or bool(browser.server.refused))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    sys.exit(main())
