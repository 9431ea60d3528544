"""Which commit of the user's repository changed how a check of a cell ends: `git bisect run`, with our exit codes.

It happens in a work tree of its own (`git worktree`), so that files which are not committed play no part, and the
user's branch and files stay as they are. Python looks for packages there first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.bisect import Found, describe, require_ends
from pytest_hfaccel.bisect.environments import Environment
from pytest_hfaccel.bisect.probes import CellTest, Probe, Prober, Verdict
from pytest_hfaccel.core.errors import ConfigError, HfAccelError

EXIT_CODES = {Verdict.GOOD: 0, Verdict.BAD: 1, Verdict.SKIP: 125}
"""What `git bisect run` takes the end of a command for."""
ABORT = 128
"""The exit code that ends `git bisect run`."""


class Repository:
    """The repository around a directory.

    Args:
        directory: A folder in its work tree.

    Raises:
        ConfigError: There is none.
    """

    def __init__(self, directory: Path) -> None:
        try:
            done = _git(directory, "rev-parse", "--show-toplevel", "--show-prefix", check=False)
        except FileNotFoundError as error:
            raise ConfigError("--git: git is not installed.") from error
        if done.returncode != 0:
            raise ConfigError(f"--git: {directory} is in no git repository: {done.stderr.strip()}")
        top, _, prefix = done.stdout.partition("\n")
        self.top, self.prefix = Path(top), prefix.strip()

    def commit(self, revision: str, option: str) -> str:
        """Return the hash of the commit that a revision names.

        Raises:
            ConfigError: It names none; the message begins with `option`.
        """
        done = _git(self.top, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False)
        if done.returncode != 0:
            raise ConfigError(f"{option} {revision}: the repository {self.top} has no such commit.")
        return done.stdout.strip()

    def is_ancestor(self, one: str, other: str) -> bool:
        """Whether a commit is among those that another one is based on."""
        return _git(self.top, "merge-base", "--is-ancestor", one, other, check=False).returncode == 0

    def title(self, commit: str) -> str:
        """Return what a commit says: short hash, date, author's subject."""
        return _git(self.top, "show", "--no-patch", "--format=%h %as %s", commit).stdout.strip()

    def first_folders(self, tree: Path) -> list[Path]:
        """Return the folders of a work tree in which Python finds its packages."""
        return [path for path in (tree, tree / "src") if path.is_dir()]

    @contextmanager
    def work_tree(self, commit: str, folder: Path) -> Iterator[Path]:
        """Check a commit out into a folder, which is gone afterwards."""
        tree = folder / "tree"
        _git(self.top, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git(tree, "bisect", "reset", check=False)
            _git(self.top, "worktree", "remove", "--force", str(tree), check=False)


@dataclass(frozen=True)
class Step:
    """What `git bisect run` needs to run the check at the commit that is checked out; travels as JSON."""

    test: dict[str, Any]
    cache_dir: str
    basis: str
    fresh: bool
    prefix: str
    results: str
    also_bad: str = ""
    good_first: bool = True

    @classmethod
    def of(cls, test: CellTest, cache_dir: Path, basis: str, *, fresh: bool, prefix: str, results: Path) -> Step:
        """Make it of what a `Prober` is made of."""
        plain = {**asdict(test), "directory": str(test.directory)}
        return cls(plain, str(cache_dir), basis, fresh, prefix, str(results))

    def run(self, tree: Path) -> Probe:
        """Run the check in a work tree, at its commit."""
        lists = {name: tuple(self.test[name]) for name in ("options", "tests")}
        directory = tree / self.prefix
        test = CellTest(**{**self.test, **lists, "directory": directory if directory.is_dir() else tree})
        repository, commit = Repository(tree), _git(tree, "rev-parse", "HEAD").stdout.strip()
        prober = Prober(test, Path(self.cache_dir), self.basis, fresh=self.fresh)
        probe = prober.run(commit, Environment, *repository.first_folders(tree))
        with Path(self.results).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(probe)) + "\n")
        print(f"{repository.title(commit)}: {describe(probe)}", file=sys.stderr, flush=True)  # noqa: T201 - progress
        return probe


def search_commits(
    repository: Repository, good: str, bad: str, test: CellTest, cache_dir: Path, basis: str, *, fresh: bool = False
) -> Found:
    """Find the first commit at which a check ends otherwise than before.

    Args:
        repository: The repository.
        good: The hash of a commit at which the check passes.
        bad: The hash of one at which it does not. If it is the older one, the commit that repaired it is found.
        test: The test of the cell; its working directory is that folder at each commit.
        cache_dir: The project's cache directory.
        basis: What the outcomes depend on besides the commit.
        fresh: Whether to run also what an earlier call has run.

    Raises:
        NothingToSearch: The good end is not good, or the bad end not bad.
        HfAccelError: git has failed.
    """
    good_first = not repository.is_ancestor(bad, good)
    old, new = (good, bad) if good_first else (bad, good)
    with tempfile.TemporaryDirectory(prefix="hfaccel-bisect-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch).resolve()
        results = folder / "results.jsonl"
        step = Step.of(test, cache_dir, basis, fresh=fresh, prefix=repository.prefix, results=results)
        with repository.work_tree(bad, folder) as tree:
            at_bad = step.run(tree)
            _git(tree, "checkout", "--quiet", "--detach", good)
            at_good = step.run(tree)
            also_bad = require_ends(at_good, at_bad)
            file = folder / "step.json"
            file.write_text(
                json.dumps({**asdict(step), "also_bad": also_bad, "good_first": good_first}), encoding="utf-8"
            )
            _git(tree, "bisect", "start", "--term-old=before", "--term-new=after", new, old)
            # -P: the package that runs now, not the one in the work tree, which may be this project at another commit.
            command = (sys.executable, "-P", "-m", __name__, str(file))
            done = _git(tree, "bisect", "run", *command, check=False, quiet=False)
            between = _git(tree, "rev-list", "--topo-order", "--reverse", new, "--not", old).stdout.split()
            first = _git(tree, "rev-parse", "--verify", "--quiet", "refs/bisect/after", check=False).stdout.strip()
            known = _git(tree, "for-each-ref", "--format=%(objectname)", "refs/bisect/before-*").stdout.split()
            if not first or (done.returncode and "skip" not in done.stdout + done.stderr):
                raise HfAccelError(f"git bisect run ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
            suspects = _git(tree, "rev-list", "--topo-order", "--reverse", first, "--not", *known).stdout.split()
        probes = {
            probe.at: probe
            for probe in (Probe(**json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines())
        }
    order = {commit: number for number, commit in enumerate([old, *between])}
    in_order = dict(sorted(probes.items(), key=lambda each: order.get(each[0], -1)))
    return Found(in_order, suspects, not good_first, also_bad)


def exit_code(probe: Probe, also_bad: str, *, good_first: bool = True) -> int:
    """Return what tells `git bisect run` how a check ended; where the older end is bad, bad is what it calls good."""
    verdict = probe.verdict(also_bad)
    if not good_first and verdict != Verdict.SKIP:
        verdict = Verdict.GOOD if verdict == Verdict.BAD else Verdict.BAD
    return EXIT_CODES[verdict]


def _git(directory: Path, *arguments: str, check: bool = True, quiet: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments],  # noqa: S607 - whichever git the user has
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    done.stderr = done.stderr or ""
    if check and done.returncode != 0:
        raise HfAccelError(f"git {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done


def main(file: str) -> int:
    """Run the check at the commit that is checked out here; return the exit code for `git bisect run`."""
    data: Mapping[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    step = Step(**data)
    try:
        return exit_code(step.run(Path.cwd()), step.also_bad, good_first=step.good_first)
    except HfAccelError as error:
        print(error, file=sys.stderr)  # noqa: T201 - it is a command
        return ABORT


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
