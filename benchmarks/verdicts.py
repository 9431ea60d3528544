"""Compares the verdicts of two runs, cell by cell and check by check; times and measured numbers do not count.

    python benchmarks/verdicts.py before/journal.jsonl after/journal.jsonl
    python benchmarks/verdicts.py --numbers before/journal.jsonl after/journal.jsonl    # and drifts of rel-L2

The net of a rebuilding: the journal of `make matrix`, of a run of every status on the fake device, and of a sweep of
classes on OpenVINO must say the same before and after. Exit code 1 where they do not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_hfaccel.reporting import read_journal

Verdicts = dict[tuple[str, str, str], tuple[str, str]]
"""(module, cell, check) -> (status, stage)."""

DRIFT = 10.0
"""A rel-L2 that changes by more than this factor, above the noise of fp32, is told."""
NOISE = 1e-6


def read(path: Path) -> tuple[Verdicts, dict[tuple[str, str, str], float]]:
    """Return the verdicts of a journal, and the rel-L2 of the checks that measured one."""
    contents = read_journal(path)
    for problem in contents.problems:
        print(problem, file=sys.stderr)
    verdicts: Verdicts = {}
    errors: dict[tuple[str, str, str], float] = {}
    for result in contents.results:
        for check in result.checks:
            key = (result.module, result.cell, check.name)
            verdicts[key] = (str(check.status), str(check.stage or ""))
            if isinstance(check.measures.get("rel_l2"), float):
                errors[key] = check.measures["rel_l2"]
    return verdicts, errors


def differences(before: Verdicts, after: Verdicts) -> list[str]:
    """Return a line for each check whose verdict is another, or that only one of the runs has."""

    def told(verdict: tuple[str, ...]) -> str:
        return " ".join(filter(None, verdict)) or "not run"

    return [
        f"{' '.join(key)}: {told(before.get(key, ()))} -> {told(after.get(key, ()))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--numbers", action="store_true", help=f"tell each rel-L2 that changed by a factor of {DRIFT:g}"
    )
    arguments = parser.parse_args()
    (before, old_errors), (after, new_errors) = read(arguments.before), read(arguments.after)
    different = differences(before, after)
    for line in different:
        print(line)
    if arguments.numbers:
        for key in sorted(old_errors.keys() & new_errors.keys()):
            old, new_error = old_errors[key], new_errors[key]
            if max(old, new_error) > NOISE and not 1 / DRIFT < (new_error or NOISE) / (old or NOISE) < DRIFT:
                print(f"{' '.join(key)}: rel-L2 {old:.2g} -> {new_error:.2g}")
    print(f"{len(before)} checks before, {len(after)} after, {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
