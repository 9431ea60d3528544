"""Break this package in sixty ways, one after the other, and see what notices.

    python benchmarks/mutation/run.py                                # all, some ten minutes
    python benchmarks/mutation/run.py --only memory --every-stage    # one area, and all that catches each

The first writes `docs/results/mutations.md`. Each mutation (`mutations.py`) is applied to a copy of the working tree,
never to the tree itself. Then run, in the order of what they cost, and up to the first that notices:

1. the tests that are about the mutated file, `-x`;
2. `hfaccel selftest --device cpu`;
3. a matrix of two tiny models on the CPU, whose verdicts and exit code are compared with those without the mutation.

What takes longer than the time limit has been noticed, too: somebody waits for it. All of it runs without any mutation
first, and must pass. The exit code is 1 when more than two mutations survive or one does not apply any more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mutations import MUTATIONS, PACKAGE, DoesNotApply, Mutation

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "mutations.md"
MAY_SURVIVE = 2
_LIMIT = 240
"""Seconds for one stage. The longest, all the tests before the first mutation, takes 80 on a busy machine."""


@dataclass
class Workshop:
    """A copy of the working tree, and a cache that its runs share.

    Attributes:
        directory: The copy.
        cache: What tiny checkpoints are kept in.
        verdicts: What the matrix says without a mutation.
    """

    directory: Path
    cache: Path
    verdicts: str = ""

    def run(self, module: str, *arguments: str) -> tuple[int | None, str]:
        """Run a module of the copy as a program; return its exit code, `None` beyond the time limit, and its output.

        It runs in a fork of this process, which has imported torch and transformers: that takes longer than most runs.
        """
        with tempfile.TemporaryFile() as output:
            process = os.fork()
            if process == 0:
                self._become(module, arguments, output.fileno())
            deadline, status = time.monotonic() + _LIMIT, None
            while status is None and time.monotonic() < deadline:
                done, found = os.waitpid(process, os.WNOHANG)
                status = os.waitstatus_to_exitcode(found) if done else None
                time.sleep(0.02)
            if status is None:
                os.killpg(process, signal.SIGKILL)  # its own children, too
                os.waitpid(process, 0)
            output.seek(0)
            return status, output.read().decode(errors="replace")

    def _become(self, module: str, arguments: tuple[str, ...], output: int) -> None:
        """Turn this process, a fork, into a run of a module. Never returns."""
        code: object = 70
        try:
            os.setsid()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self.directory)
            os.environ |= {"PYTHONPATH": str(self.directory), "HFACCEL_CACHE": str(self.cache)}
            sys.path[0] = str(self.directory)
            sys.argv[1:] = arguments
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0 if code is None else 70)

    def tests(self, mutation: Mutation) -> str:
        """Return the first test that fails; empty when none does."""
        code, output = self.run(
            "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.paths_of_tests(self.directory)
        )
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        return _noticed(code, found[1].removeprefix("tests/") if found else f"exit code {code}")

    def self_test(self, _mutation: Mutation | None = None) -> str:
        """Return the first defect that is not caught; empty when all are."""
        code, output = self.run(PACKAGE, "selftest", "--device", "cpu")
        found = re.search(r"^(.+?) {2,}\S+ +(NOT CAUGHT|NOT PLANTED|FAILED)", output, re.MULTILINE)
        return _noticed(code, f"{found[1]}: {found[2]}" if found else f"exit code {code}: {output.strip()[-200:]}")

    def matrix(self, _mutation: Mutation | None = None) -> str:
        """Return what the matrix says otherwise than without a mutation; empty when it says the same."""
        said = self.matrix_verdicts()
        if said == self.verdicts:
            return ""
        changed = sorted(set(said.splitlines()) ^ set(self.verdicts.splitlines()))
        return changed[0] if changed else "other verdicts"

    def matrix_verdicts(self) -> str:
        """Run the matrix; return its exit code and the status of each check, a line each."""
        reports = self.directory / "reports"
        shutil.rmtree(reports, ignore_errors=True)
        options = [
            "--hf-device",
            "cpu",
            "--hf-weights",
            "tiny",
            "--hf-model",
            "bert-base-uncased",
            "--hf-model",
            "gpt2",
        ]
        modules = [f"model_classes/test_hf_{name}.py" for name in ("bert", "gpt")]
        code, _ = self.run("pytest", "-q", "-p", "no:cacheprovider", *modules, *options)
        lines = [f"exit code {code}"]
        for path in sorted((reports / "by_class").glob("*.json")):
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                lines += [f"{cell['cell']} {check['name']} {check['status']}" for check in cell["checks"]]
        return "\n".join(lines)


def _noticed(code: int | None, what: str) -> str:
    return "" if code == 0 else "time limit" if code is None else what


Stage = Callable[[Workshop, Mutation], str]
STAGES: dict[str, Stage] = {"tests": Workshop.tests, "self-test": Workshop.self_test, "matrix": Workshop.matrix}


@dataclass
class Result:
    """What became of a mutation: its file, by stage what noticed it, empty where nothing did, the seconds of it all."""

    mutation: Mutation
    file: str
    by: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_caught(self) -> bool:
        """Whether anything noticed it."""
        return any(self.by.values())


def import_what_takes_long() -> None:
    """Import what the runs need and what is not mutated."""
    for name in [name for name in os.environ if name.startswith(("HFACCEL_", "PYTEST_", "HF_"))]:
        del os.environ[name]
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    import pydantic
    import safetensors.torch
    import transformers

    # transformers imports a class when it is asked for.
    for name in ("BertForMaskedLM", "BertTokenizer", "GPT2LMHeadModel", "PreTrainedTokenizerFast", "pipeline"):
        getattr(transformers, name)
    assert pydantic, safetensors
    assert PACKAGE not in sys.modules


def copy_of_the_tree(target: Path) -> None:
    """Copy what git knows of the working tree, and what is new in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def without_a_mutation(workshop: Workshop, chosen: list[Mutation]) -> None:
    """Run everything once; what fails now would be taken for a catch later."""
    code, output = workshop.run("inspect", "--details", PACKAGE)
    if f"Origin: {workshop.directory}" not in output:
        raise SystemExit(f"the copy is not what Python imports: {code} {output}")
    names = sorted({name for mutation in chosen for name in mutation.paths_of_tests(workshop.directory)})
    code, output = workshop.run("pytest", "-x", "-q", "-p", "no:cacheprovider", *names)
    if code != 0:
        raise SystemExit(f"the tests do not pass without a mutation: {code}\n{output[-2000:]}")
    if problem := workshop.self_test():
        raise SystemExit(f"the self-test does not pass without a mutation: {problem}")
    workshop.verdicts = workshop.matrix_verdicts()
    if not workshop.verdicts.startswith("exit code 0\n"):
        raise SystemExit(f"the matrix does not pass without a mutation: {workshop.verdicts}")


def tried(workshop: Workshop, mutation: Mutation, *, every_stage: bool) -> Result:
    """Apply a mutation to the copy, run the stages, and take it back."""
    path = mutation.place(workshop.directory)
    right, stat = path.read_bytes(), path.stat()
    file = path.relative_to(workshop.directory / PACKAGE).as_posix()
    result, started = Result(mutation, file), time.monotonic()
    path.write_text(right.decode().replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        for name, stage in STAGES.items():
            result.by[name] = stage(workshop, mutation)
            if result.by[name] and not every_stage:
                break
    finally:
        path.write_bytes(right)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its compiled form is valid again
    result.seconds = time.monotonic() - started
    return result


def page(results: list[Result], seconds: float) -> Iterator[str]:
    """Give the lines of the page of results."""
    caught = [result for result in results if result.is_caught]
    yield "# Mutations"
    yield ""
    yield (
        f"Written by `python benchmarks/mutation/run.py` on {datetime.now(UTC):%Y-%m-%d}, Python "
        f"{platform.python_version()}: {len(caught)} of {len(results)} mutations of this package are noticed, in "
        f"{seconds / 60:.0f} minutes with two processors that others used, too."
    )
    yield ""
    yield (
        "Each is a small patch of the source, applied to a copy (`benchmarks/mutation/mutations.py`). *Noticed by* is "
        "the first of: the tests about the file (the test that fails is named), `hfaccel selftest --device cpu` (the "
        "defect that it no longer catches, or cannot plant), a matrix of two tiny models on the CPU (the verdict "
        "that is another)."
    )
    yield ""
    survivors = [result for result in results if not result.is_caught]
    yield f"Not noticed: {', '.join(f'*{one.mutation.name}* (`{one.file}`)' for one in survivors) or 'none'}."
    yield ""
    first = {stage: sum(bool(one.by.get(stage)) for one in results) for stage in STAGES}
    tried_by = {stage: sum(stage in one.by for one in results) for stage in STAGES}
    yield "; ".join(f"{stage}: {first[stage]} of {tried_by[stage]} that reached it" for stage in STAGES) + "."
    yield ""
    yield "| area | mutation | file | noticed by | what | s |"
    yield "|---|---|---|---|---|---|"
    for result in results:
        stage = next((name for name, what in result.by.items() if what), "nothing")
        what = result.by.get(stage, "").replace("|", "\\|")
        also = ", ".join(name for name, said in result.by.items() if said and name != stage)
        by = f"{stage}; also {also}" if also else stage
        one = result.mutation
        yield f"| {one.area} | {one.name} | `{result.file}` | {by} | {what} | {result.seconds:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="mutations whose area or name contains this text")
    parser.add_argument("--every-stage", action="store_true", help="go on after the first stage that notices")
    parser.add_argument("--output", type=Path, help=f"the page; without --only it is {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    chosen = [one for one in MUTATIONS if arguments.only in f"{one.area} {one.name}"]
    output = arguments.output or (None if arguments.only else RESULTS)
    started, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="hfaccel-mutations-") as folder:
        workshop = Workshop(Path(folder).resolve() / "tree", Path(folder).resolve() / "cache")
        copy_of_the_tree(workshop.directory)
        stale = []
        for mutation in chosen:
            try:
                mutation.place(workshop.directory)
                mutation.paths_of_tests(workshop.directory)
            except DoesNotApply as error:
                stale.append(str(error))
        if stale or not chosen:
            print(*stale, "nothing was run", sep="\n", file=sys.stderr)
            return 1
        import_what_takes_long()
        without_a_mutation(workshop, chosen)
        print(f"without a mutation: {time.monotonic() - started:.0f} s", flush=True)
        for mutation in chosen:
            result = tried(workshop, mutation, every_stage=arguments.every_stage)
            results.append(result)
            said = "; ".join(f"{name}: {what or '-'}" for name, what in result.by.items())
            survived = "" if result.is_caught else "SURVIVED "
            print(f"{survived}{mutation.name}: {said} ({result.seconds:.0f} s)", flush=True)
            if output:
                lines = page(results, time.monotonic() - started)
                output.write_text("\n".join([*lines, ""]), encoding="utf-8")
    seconds = time.monotonic() - started
    survivors = sum(not result.is_caught for result in results)
    print(f"{len(results) - survivors} of {len(results)} noticed in {seconds:.0f} s")
    return int(survivors > MAY_SURVIVE)


if __name__ == "__main__":
    raise SystemExit(main())
