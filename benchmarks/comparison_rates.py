"""How often `hfaccel compare` takes noise for a change of speed or memory, and whether it finds a slowdown of 10 %.

    python benchmarks/comparison_rates.py

Each run is a process that loads the models and measures each as `--hf-performance` does, with the default budget; its
journal is one that a run would write. Each run is compared with the one before it: nothing changed in between, so every
change that is found is false. Between them are runs in which one model (another one in each) waits after each forward
pass for a tenth of the time that the pass took, each compared with the run before it. The table goes to
`docs/comparison_rates.md`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "comparison_rates.md"

MODELS = (
    "bert-base-uncased",
    "distilgpt2",
    "t5-small",
    "google/vit-base-patch16-224",
    "openai/whisper-tiny",
    "roberta-base",
    "facebook/deit-base",
    "openai/clip-vit-base-patch32",
)
SLOWDOWN = 0.1
_LENGTH = 32


class Slowed:
    """A loaded model whose forward passes take longer by a share.

    Args:
        loaded: The model.
        share: By how much.
    """

    def __init__(self, loaded: Any, share: float) -> None:
        self._loaded = loaded
        self._share = share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)

    def forward(self, inputs: Any) -> Any:
        """Run, and wait for a share of what that took."""
        started = time.perf_counter()
        outputs = self._loaded.forward(inputs)
        until = started + (1.0 + self._share) * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
        return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=51, help="runs without a change, each compared with the one before")
    parser.add_argument("--slowed", type=int, default=16, help="runs between them in which one model is slowed down")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--journals", type=Path, help="where journals are kept, and reused if they are there")
    parser.add_argument("--note", default="", help="a sentence about the machine, for the document")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.journals or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        same = [directory / f"same_{number:03d}.jsonl" for number in range(given.runs)]
        # Each slowed run comes after one without a change, and is compared with that.
        step = max(1, given.runs // max(1, given.slowed))
        slowed = [
            (same[at], directory / f"slow_{k:03d}.jsonl") for k in range(given.slowed) if (at := k * step) < given.runs
        ]
        entries: list[tuple[Path, str]] = []
        for path in same:
            entries.append((path, ""))
            entries += [(after, MODELS[k % len(MODELS)]) for k, (before, after) in enumerate(slowed) if before == path]
        missing = [entry for entry in entries if not entry[0].exists()]
        if missing:
            measure_all(missing, given.threads, Path(temporary) / "cache")
        lines = table(list(pairwise(same)), slowed, given.threads, given.note)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def measure_all(entries: Sequence[tuple[Path, str]], threads: int, cache: Path) -> None:
    """Measure runs, each in a fork of this process, which has everything imported."""
    import torch

    import pytest_hfaccel.campaign
    import pytest_hfaccel.engine.cell_run
    import pytest_hfaccel.reporting  # noqa: F401 - what the forks use
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.benchmark.inputs import make_inputs
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.core.spec import CPU, Cell, Weights, WeightsChoice
    from pytest_hfaccel.hardware import machine_facts
    from pytest_hfaccel.registry import load_registry

    torch.set_num_threads(threads)
    registry, store, backend = load_registry(), CheckpointStore(cache), Backends().for_kind("cpu")
    prepared = []
    for name in MODELS:
        cell = Cell(registry.get(name), CPU, "fp32", WeightsChoice(Weights.TINY, "the benchmark's"))
        checkpoint = store.prepare(cell.model, cell.weights)
        backend.load(cell, checkpoint).forward(make_inputs(checkpoint, 1, _LENGTH).forward)
        prepared.append((cell, checkpoint))
    machine = machine_facts()
    context = multiprocessing.get_context("fork")
    for number, (path, slow) in enumerate(entries, 1):
        load = {"load_average": os.getloadavg()[0]}
        process = context.Process(target=_measure_run, args=(path, prepared, slow, {**machine, **load}))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{path}: the measuring process ended with {process.exitcode}")
        print(f"{number} of {len(entries)} runs", flush=True)


def _measure_run(path: Path, prepared: Sequence[tuple[Any, Any]], slow: str, machine: dict[str, Any]) -> None:
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.benchmark.inputs import make_inputs
    from pytest_hfaccel.benchmark.measuring import measure
    from pytest_hfaccel.campaign import outcome_of
    from pytest_hfaccel.core.results import CellResult
    from pytest_hfaccel.engine.cell_run import identity
    from pytest_hfaccel.reporting import Journal

    backend, draft = Backends().for_kind("cpu"), path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with closing(Journal(draft, {"id": path.stem, "started": "", "machine": machine})) as journal:
        for cell, checkpoint in prepared:
            loaded: Any = backend.load(cell, checkpoint)
            if cell.model.name == slow:
                loaded = Slowed(loaded, SLOWDOWN)
            # Generation has no repetitions that are kept, and takes most of the time.
            measured = measure(loaded, cell, make_inputs(checkpoint, 1, _LENGTH), generation=False)
            journal.append(CellResult(**identity(cell, "benchmark"), checks=[outcome_of(measured)]))
    draft.replace(path)


def table(same: Sequence[tuple[Path, Path]], slowed: Sequence[tuple[Path, Path]], threads: int, note: str) -> list[str]:
    """The document."""
    import torch

    found = [_compared(*pair) for pair in same]
    alone = [_compared(*pair, only=name) for pair in same for name in MODELS]
    slow = [(MODELS[number % len(MODELS)], _compared(*pair)) for number, pair in enumerate(slowed)]
    seen = [(name, comparison, _slower(comparison)) for name, comparison in slow]
    visible_ones = [one for one in seen if any(t.limit < SLOWDOWN and t.model == one[0] for t in one[1].timings)]
    measurements = sum(len(comparison.timings) for comparison in found)
    spreads = sorted(device.spread or 0.0 for comparison in found for device in comparison.noise)
    visible = sorted(device.least_visible for comparison in found for device in comparison.noise)
    from pytest_hfaccel.hardware.cpu import read_cpuinfo

    rows = [
        ("pairs in which a measurement was called slower", _share(sum(bool(_slower(c)) for c in found), len(found))),
        ("measurements called slower", _share(sum(len(_slower(c)) for c in found), measurements)),
        ("measurements called slower or faster", _share(sum(len(_changed(c)) for c in found), measurements)),
        ("pairs in which the whole device was called slower", _share(_slow_devices(found), len(found))),
        (
            "pairs in which memory was called grown",
            _share(sum(any(m.is_worse for m in c.memory) for c in found), len(found)),
        ),
        ("a model compared alone, called slower", _share(sum(bool(_slower(c)) for c in alone), len(alone))),
        (f"slowdown of {SLOWDOWN:.0%} found", _share(sum(name in names for name, _, names in seen), len(seen))),
        (
            f"slowdown of {SLOWDOWN:.0%} found, and nothing else",
            _share(sum(names == [name] for name, _, names in seen), len(seen)),
        ),
        (
            f"slowdown of {SLOWDOWN:.0%} found or called unclear",
            _share(sum(name in _unclear(c) + names for name, c, names in seen), len(seen)),
        ),
        (
            f"slowdown of {SLOWDOWN:.0%} found, where the limit of the model was below that",
            _share(sum(name in names for name, _, names in visible_ones), len(visible_ones)),
        ),
    ]
    return [
        "# What `hfaccel compare` takes for a change, and what it misses",
        "",
        f"Written by `python benchmarks/comparison_rates.py`. {len(MODELS)} tiny models on the CPU, {threads} "
        f"thread{'s' if threads > 1 else ''}, the default number of repetitions. Each run makes a pair with the one "
        "before it. *slowdown*: in one run of a pair one model, another one each time, waits after each forward pass.",
        "",
        f"Machine: {read_cpuinfo()[0] or platform.machine()}, {os.cpu_count()} cores, {platform.system()}; torch "
        f"{torch.__version__}; {time.strftime('%Y-%m-%d')}. Load average during the runs: {_loads(found)}."
        f"{note and ' '}{note}",
        "",
        f"Spread of the changes between the runs of a pair: median {spreads[len(spreads) // 2]:.1%}, largest "
        f"{spreads[-1]:.1%}; smallest change that half of the measurements could show: median "
        f"{visible[len(visible) // 2]:.1%}, largest {visible[-1]:.1%}.",
        "",
        "| | number | share |",
        "|---|---|---|",
        *(f"| {what} | {share} |" for what, share in rows),
    ]


def _compared(before: Path, after: Path, only: str = "") -> Any:
    from pytest_hfaccel.comparison import compare_runs, read_side

    baseline, run = (read_side(str(path), path.parent, option="--journals") for path in (before, after))
    for side in (baseline, run) if only else ():
        side.points = {key: measured for key, measured in side.points.items() if key[0] == only}
    return compare_runs(baseline, run)


def _slower(comparison: Any) -> list[str]:
    return [one.model for one in comparison.timings if one.verdict == "slower"]


def _changed(comparison: Any) -> list[str]:
    return [one.model for one in comparison.timings if one.verdict in ("slower", "faster")]


def _unclear(comparison: Any) -> list[str]:
    return [one.model for one in comparison.timings if one.verdict == "unclear"]


def _slow_devices(found: Sequence[Any]) -> int:
    return sum(any(device.verdict == "slower" for device in comparison.noise) for comparison in found)


def _loads(found: Sequence[Any]) -> str:
    """How many processes wanted a core meanwhile: a quiet machine has about 1, this benchmark."""
    loads = sorted(comparison.run.header["machine"]["load_average"] for comparison in found)
    return f"{loads[0]:.1f} to {loads[-1]:.1f}, median {loads[len(loads) // 2]:.1f}"


def _share(count: int, of: int) -> str:
    return f"{count} of {of} | {count / of:.1%}" if of else "- | -"


if __name__ == "__main__":
    main()
