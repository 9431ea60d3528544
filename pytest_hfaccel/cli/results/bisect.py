"""`hfaccel bisect`: which release of a package, or which commit, changed how a cell's check ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.cli.results.cell_argument import Target, add_cell_arguments, target_of
from pytest_hfaccel.core.errors import ConfigError, HfAccelError, shorten
from pytest_hfaccel.reporting.tables import format_table

if TYPE_CHECKING:
    from packaging.version import Version

    from pytest_hfaccel.bisect import Found
    from pytest_hfaccel.bisect.probes import CellTest, Probe, Prober
    from pytest_hfaccel.bisect.releases import Release

_CHECK = "parity"
_ALSO_BAD = ("error", "crashed", "timeout", "out_of_memory")
_REASON = 90
_INTERRUPTED = 130


def add_parser(commands: Any) -> None:
    """Add `bisect` to the parsers of `hfaccel`."""
    text = (
        "Find the first release of a package, or the first commit of this repository, at which a check of a cell ends "
        "differently. Each release is installed, with what it needs, in front of the installed packages. Outcomes are "
        "kept, so that a second call runs nothing twice. Exit code 0: it was found."
    )
    parser = commands.add_parser("bisect", help="find the release or the commit that broke a cell", description=text)
    add_cell_arguments(parser)
    parser.add_argument("--check", metavar="NAME", help="the check (default: the cell's failed one, else parity)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--package", metavar="NAME", help="search its releases: transformers, torch, openvino, ...")
    what.add_argument(
        "--git", action="store_true", help="search the commits of the repository here, by `git bisect run`"
    )
    text = (
        "run the check once, here, and exit with 0 (good), 1 (bad) or 125 (cannot be told): for a `git bisect run` of "
        "your own"
    )
    what.add_argument("--once", action="store_true", help=text)
    text = "a release or revision where the check passes (default: the oldest release that pytest-hfaccel supports)"
    parser.add_argument("--good", metavar="AT", default="", help=text)
    text = "one where it fails (default: the installed release; HEAD). If it is the older one, the repair is found"
    parser.add_argument("--bad", metavar="AT", default="", help=text)
    text = "with --once: how a bad check ends, besides with a failure (default: no other way; such commits are skipped)"
    parser.add_argument("--bad-is", choices=_ALSO_BAD, default="", help=text)
    parser.add_argument("--all", action="store_true", help="run the check at every release, not only where it must be")
    parser.add_argument("--pre-releases", action="store_true", help="use pre-releases, too")
    parser.add_argument("--yanked", action="store_true", help="use releases that their authors have withdrawn, too")
    text = "install this, too, with each release; may be repeated. {version} in it is the release's version"
    parser.add_argument("--with", action="append", default=[], dest="together", metavar="REQUIREMENT", help=text)
    text = "what installs: uv, pip, or auto for uv where it is found (default: %(default)s)"
    parser.add_argument("--installer", choices=("auto", "uv", "pip"), default="auto", help=text)
    text = "seconds that the check may take at one release or commit, with the start of Python (default: %(default)s)"
    parser.add_argument("--timeout", type=int, default=1800, metavar="SECONDS", help=text)
    parser.add_argument("--fresh", action="store_true", help="run again what an earlier call has run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    text = (
        "the rest of the line: arguments of pytest that select your own test of the cell (default: the test that "
        "the run names, or a module that takes any model)"
    )
    parser.add_argument("--tests", nargs=argparse.REMAINDER, default=[], metavar="ARGUMENTS", help=text)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.timeout < 1:
        raise ConfigError(f"--timeout {arguments.timeout}: nothing would run. Wanted: seconds, 1 or more.")
    if arguments.once:
        return _run_once(arguments)
    target = target_of(arguments)
    test = _test_of(target, arguments)
    try:
        return (_search_commits if arguments.git else _search_releases)(test, target, arguments)
    except KeyboardInterrupt:
        _say("Interrupted. What has been run is kept: the same command goes on from there.")
        return _INTERRUPTED


def _run_once(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.bisect import describe
    from pytest_hfaccel.bisect.commits import ABORT, exit_code
    from pytest_hfaccel.bisect.environments import Environment

    try:
        target = target_of(arguments)
        test = _test_of(target, arguments)
        arguments.fresh = True  # what is here is no release and no commit: it may have changed since the last call
        probe = _prober(test, target, arguments).run("here", Environment, test.directory)
    except HfAccelError as error:  # 1 would say to git that this commit is bad
        print(f"hfaccel: {error}", file=sys.stderr)
        return ABORT
    if arguments.json:
        print_json({"verdict": probe.verdict(arguments.bad_is), **probe.to_json()})
    else:
        print(f"{probe.verdict(arguments.bad_is)}: {test.check} {describe(probe)}")
    return exit_code(probe, arguments.bad_is)


def _test_of(target: Target, arguments: argparse.Namespace) -> CellTest:
    from pytest_hfaccel.bisect.probes import CellTest
    from pytest_hfaccel.core.config import RunConfig

    options: list[str] = []
    variables: dict[str, str] = {}
    for option in RunConfig.options():
        value = target.values.get(option.name)
        if value in (None, "", (), [], False):
            continue
        if not option.flag:
            variables[option.env] = str(value)
        elif option.is_switch:
            options.append(option.flag)
        else:
            options += [f"{option.flag}={each}" for each in (value if isinstance(value, list | tuple) else [value])]
    failed = next((one.name for one in target.failures()), "")
    check = arguments.check or target.check or failed or _CHECK
    tests = tuple(arguments.tests) or target.tests(check)
    return CellTest(check, tuple(options), tests, Path.cwd(), float(arguments.timeout), variables)


def _cache_dir(target: Target) -> Path:
    from pytest_hfaccel.core.config import RunConfig

    return RunConfig.from_values({key: value for key, value in target.values.items() if key == "cache"}).cache_dir


def _prober(test: CellTest, target: Target, arguments: argparse.Namespace) -> Prober:
    from pytest_hfaccel.bisect.environments import fingerprint
    from pytest_hfaccel.bisect.probes import Prober

    _require_check(test.check)
    basis = " ".join((fingerprint(), arguments.package or "", *arguments.together))
    return Prober(test, _cache_dir(target), basis, fresh=arguments.fresh)


def _search_commits(test: CellTest, target: Target, arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.bisect.commits import Repository, search_commits
    from pytest_hfaccel.bisect.environments import fingerprint

    if not arguments.good:
        raise ConfigError("--git needs --good: a revision at which the check passes.")
    if arguments.all:
        raise ConfigError("--all is for releases; commits are searched by `git bisect run`.", hint="Leave it out.")
    repository = Repository(Path.cwd())
    good, bad = repository.commit(arguments.good, "--good"), repository.commit(arguments.bad or "HEAD", "--bad")
    if good == bad:
        raise ConfigError(f"--good and --bad are the same commit: {repository.title(good)}")
    found = search_commits(repository, good, bad, test, _cache_dir(target), fingerprint(), fresh=arguments.fresh)
    titles = {commit: repository.title(commit) for commit in (*found.probes, *found.suspects)}
    name = f"commit of {repository.top.name}"
    return _print(found, test, arguments, name, titles, [], "git")


def _search_releases(test: CellTest, target: Target, arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.bisect import describe, search
    from pytest_hfaccel.bisect.environments import Environments, NoEnvironment
    from pytest_hfaccel.bisect.probes import NO_ENVIRONMENT, Probe
    from pytest_hfaccel.bisect.releases import IndexSettings, list_releases

    package: str = arguments.package
    settings = IndexSettings.of_user()
    environments = Environments(
        package, settings, _cache_dir(target), installer=arguments.installer, together=arguments.together
    )
    releases = list_releases(package, settings, pre_releases=arguments.pre_releases, yanked=arguments.yanked)
    good, bad = _ends(package, releases, arguments)
    low, high = min(good, bad), max(good, bad)
    between = [each for each in releases if low <= each.version <= high]
    usable = {str(each.version): each.version for each in between if not each.left_out}
    prober = _prober(test, target, arguments)
    _say(f"{package} {low} to {high}: {len(usable)} releases, installed by {environments.installer}")

    def run(at: str) -> Probe:
        try:
            probe = prober.run(at, lambda: environments.make(usable[at]))
        except NoEnvironment as error:
            probe = Probe(at, NO_ENVIRONMENT, str(error))
        _say(f"{at}: {describe(probe)}{', kept from an earlier call' if probe.is_kept else ''}")
        return probe

    found = search(list(usable), run, good_first=good < bad, everywhere=arguments.all)
    left_out = [each for each in between if each.left_out]
    titles = {at: at for at in usable}
    return _print(found, test, arguments, f"release of {package}", titles, left_out, environments.installer)


def _ends(package: str, releases: list[Release], arguments: argparse.Namespace) -> tuple[Version, Version]:
    from pytest_hfaccel.bisect.releases import installed_version, oldest_supported

    usable = [each.version for each in releases if not each.left_out]
    installed = installed_version(package)
    if not arguments.bad and installed is None:
        raise ConfigError(f"--package {package} is not installed: --bad has to name a release.")
    good = _end(arguments.good, "--good", releases) if arguments.good else oldest_supported(package, usable)
    bad = _end(arguments.bad or str(installed), "--bad", releases)
    if good is None:
        raise ConfigError(f"--package {package} needs --good: a release with which the check passes.")
    if good == bad:
        raise ConfigError(f"--good and --bad are the same release of {package}: {good}.")
    return good, bad


def _end(text: str, option: str, releases: list[Release]) -> Version:
    """Return the release that an end names: `5.16` is 5.16.0, `2.13.0+cpu` also 2.13.0.

    Raises:
        ConfigError: It is no version, there is no such release, or it cannot be installed.
    """
    from packaging.version import InvalidVersion, Version

    try:
        wanted = Version(text)
    except InvalidVersion as error:
        raise ConfigError(f"{option} {text}: this is no version. Wanted: one such as 5.16 or 5.16.1.") from error
    found = next((each for each in releases if Version(each.version.public) == Version(wanted.public)), None)
    if found is None or found.left_out:
        usable = [each.version for each in releases if not each.left_out]
        near = sorted(sorted(usable, key=lambda each: _distance(each, wanted))[:4])
        reason = found.left_out if found else "the package index has no such release"
        raise ConfigError(f"{option} {text}: {reason}. Releases near it: {', '.join(map(str, near)) or 'none'}.")
    return found.version


def _distance(one: Version, other: Version) -> tuple[int, ...]:
    return tuple(abs(a - b) for a, b in zip((*one.release, 0, 0), (*other.release, 0, 0), strict=False))


def _print(
    found: Found,
    test: CellTest,
    arguments: argparse.Namespace,
    what: str,
    titles: dict[str, str],
    left_out: list[Release],
    tool: str,
) -> int:
    from packaging.utils import canonicalize_name

    commands = {name: _command(probe) for name, probe in (("fails", found.bad), ("passes", found.good))}
    package = canonicalize_name(arguments.package or "")
    also_changed = {each: two for each, two in found.also_changed().items() if each != package}
    if arguments.json:
        print_json(
            {
                "cell": arguments.cell,
                "check": test.check,
                "tool": tool,
                "package": arguments.package,
                "change": "fixed" if found.was_fixed else "broken",
                "first": found.first,
                "suspects": found.suspects,
                "probes": [
                    {**probe.to_json(), "verdict": probe.verdict(found.also_bad)} for probe in found.probes.values()
                ],
                "also_changed": also_changed,
                "left_out": {str(each.version): each.left_out for each in left_out},
                "commands": commands,
            }
        )
        return 0
    print("\n".join(format_table(_rows(found, titles))))
    state = "good" if found.was_fixed else "bad"
    if len(found.suspects) == 1:
        print(f"\nFirst {state} {what}: {titles[found.first]}")
    else:
        print(f"\nThe first {state} {what} is one of these; the others could not be tried:")
        print(*(f"  {titles.get(each, each)}" for each in found.suspects), sep="\n")
    if also_changed:
        shown = (f"{name} {' -> '.join(each or 'as installed' for each in two)}" for name, two in also_changed.items())
        print(f"What it needs changed, too: {', '.join(shown)}")
    for name, command in commands.items():
        print(f"{name.capitalize() + ':':<7} {command}")
    for each in left_out:
        print(f"Left out: {each.version}: {each.left_out}")
    return 0


def _command(probe: Probe) -> str:
    """Return the shell command that shows how the check ends at a release or commit."""
    is_commit = probe.at.isalnum()
    return f"git checkout {probe.at[:12]} && {probe.command}" if is_commit else probe.command


def _rows(found: Found, titles: dict[str, str]) -> Iterator[list[str]]:
    names = list(dict.fromkeys(name for probe in found.probes.values() for name in probe.numbers()))
    yield ["at", "", "check", *(name.replace("rel_l2", "rel-L2") for name in names), "reason"]
    for probe in found.probes.values():
        numbers = probe.numbers()
        texts = [f"{numbers[name]:.3g}" if name in numbers else "" for name in names]
        shown = shorten(" ".join(probe.reason.split()), _REASON)
        yield [titles[probe.at], str(probe.verdict(found.also_bad)), probe.status, *texts, shown]


def _require_check(name: str) -> None:
    """Refuse what cannot be the name of a check, before anything is installed.

    Raises:
        ConfigError: It is no name. Those of other packages' checks are not known here.
    """
    if not name.isidentifier():
        from pytest_hfaccel.checks import built_in_checks

        known = ", ".join(check.name for check in built_in_checks())
        raise ConfigError(f"--check {name}: this is no name of a check. Built in: {known}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
