"""Runs and their folders: each run writes into one of its own, and the top level of `reports/` shows the latest.

reports/
    runs/0007-20260131T120000Z-3fa2/    index.html, journal.jsonl, summary.json, by_class/, by_hardware/
    latest -> runs/0007-...             replaced as a whole when a run begins
    summary.json -> latest/summary.json, and likewise the page, the journal and the two folders

Where the file system has no symbolic links the top level has copies, made when the run begins and when it ends.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock, Timeout

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import CellKey, CellResult, Ended
from pytest_hfaccel.reporting.journal import JOURNAL, Journal, JournalContents, journal_line, read_journal, unwritable
from pytest_hfaccel.reporting.reports import BY_CLASS, BY_HARDWARE, SUMMARY, speaks_against, write_reports
from pytest_hfaccel.reporting.run_facts import envelope

EARLIER_BYTES = 48 * 2**20
"""How much of earlier journals a run reads at its end, the last run first: a second or two."""

RUNS = "runs"
LATEST = "latest"
PAGE = "index.html"
_SHOWN = (PAGE, SUMMARY, JOURNAL, BY_CLASS, BY_HARDWARE)
_BEFORE = "0000-before"
"""Folder for reports that were at the top level before runs had folders; a random suffix follows."""

_ID = re.compile(r"(\d{4,})-.+")
_POINT = re.compile(r"-b\d+(?:-s\d+)?$")
"""What the node id of a test of `performance` has after the cell's id."""

_ALIVE = ".alive"
_LOCK_SECONDS = 60.0
"""How long a run waits for others that begin or end in the same moment; each takes milliseconds."""


class RunFolder:
    """The folder of one run while it goes on: its journal, then its reports.

    Args:
        reports: The directory of all runs' reports; it is made.
        header: Plain JSON about the run.
        mode: The permissions of its files.
        root: A directory: paths below it are written relative to it.
        kept: The cells that the resumed run had finished.
        resumed: The id of that run.

    Raises:
        ConfigError: It cannot be written. Nothing is left behind.
    """

    def __init__(
        self,
        reports: Path,
        header: Mapping[str, Any],
        *,
        mode: int = 0o600,
        root: str | None = None,
        kept: Sequence[CellResult] = (),
        resumed: str = "",
    ) -> None:
        self._reports = reports
        self._mode = mode
        self._root = root
        from pytest_hfaccel.reporting.html import make_first_page

        try:
            with _one_at_a_time(reports):
                self.directory = self._make()
                try:
                    self._alive = FileLock(self.directory / _ALIVE, thread_local=False)
                    self._alive.acquire(timeout=0)
                    self.header = {"id": self.id, **({"resumed": resumed} if resumed else {}), **header}
                    self.journal = Journal(self.directory / JOURNAL, self.header, mode=mode, root=root)
                    for result in kept:
                        self.journal.keep(result, resumed)
                    write_reports(self.directory, [], self.header, ended=Ended.RUNNING, mode=mode, root=root)
                    replace_file(self.directory / PAGE, make_first_page(self.id), mode=mode)
                    _show(reports, self.id)
                except BaseException:
                    self._alive.release()
                    shutil.rmtree(self.directory, ignore_errors=True)
                    raise
        except OSError as error:
            raise unwritable(Path(error.filename or reports), error) from error
        except Timeout as error:
            raise ConfigError(
                f"{error.lock_file}: another process has held this lock for {_LOCK_SECONDS:.0f} s.",
                hint="If no such process is left, delete the file; or choose another directory with --hf-reports.",
            ) from error

    @property
    def id(self) -> str:
        """The run's id: a number that rises whatever the clock does, the start, and a random part."""
        return self.directory.name

    def finish(
        self,
        results: Sequence[CellResult],
        facts: Mapping[str, Any],
        ended: Ended,
        keep_runs: int,
        comparison: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Write the reports, end the journal, and keep the folders of the last `keep_runs` runs and of running ones.

        Args:
            results: The records of all cells.
            facts: Further fields of the header, now that the run is over: `finished` at least.
            ended: How the run ended.
            keep_runs: How many runs stay, this one included.
            comparison: What changed since a baseline; its schema is `comparison`.

        Returns:
            The reports and the page, `summary.json` last.

        Raises:
            ConfigError: A report, or the end of the journal, cannot be written; what could be written stands.
        """
        try:
            header = {**self.header, **facts}
            shared: dict[str, Any] = {"mode": self._mode, "root": self._root, "comparison": comparison}
            *reports, summary = write_reports(self.directory, results, header, ended=ended, **shared)
            earlier = list(takewhile(lambda folder: folder != self.directory, run_folders(self._reports)))
            page = write_page(self.directory / PAGE, results, header, ended, earlier, **shared)
        finally:
            try:
                self.journal.close(facts["finished"], ended)
            finally:
                self._alive.release()
                with suppress(OSError):
                    (self.directory / _ALIVE).unlink(missing_ok=True)
        with suppress(OSError, Timeout), _one_at_a_time(self._reports):
            if not (self._reports / LATEST).is_symlink() and _latest_copied(self._reports) == self.id:
                _show(self._reports, self.id)
            for old in run_folders(self._reports)[:-keep_runs]:
                if not is_running(old):
                    shutil.rmtree(old, ignore_errors=True)
        return [*reports, page, summary]

    def _make(self) -> Path:
        numbers = [int(_ID.fullmatch(folder.name)[1]) for folder in run_folders(self._reports)]  # type: ignore[index]
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        directory = self._reports / RUNS / f"{max(numbers, default=0) + 1:04d}-{stamp}-{token_hex(2)}"
        for folder in (directory, directory / BY_CLASS, directory / BY_HARDWARE):
            folder.mkdir(mode=0o700)
            folder.chmod(self._mode | (self._mode & 0o444) >> 2)  # whoever may read its files may enter it
        return directory


def write_page(
    path: Path,
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    ended: Ended,
    earlier: Sequence[Path],
    *,
    limit: int | None = EARLIER_BYTES,
    comparison: Mapping[str, Any] | None = None,
    mode: int | None = None,
    root: str | None = None,
) -> Path:
    """Write the page of a run for people; see `write_reports` for the arguments.

    Args:
        path: The file.
        results: The records of all cells of the run.
        header: Plain JSON about the run.
        ended: How the run ended.
        earlier: Folders of earlier runs, oldest first: the page says what changed since.
        limit: Bytes of journals after which no older run is read; `None` for all.
        comparison: What changed since a baseline; its schema is `comparison`.
        mode: The file's permissions; by default those the process gives to any file.
        root: A directory: paths below it are written relative to it.

    Raises:
        ConfigError: It cannot be written.
    """
    from pytest_hfaccel.reporting.html import make_page, read_past_runs

    page = make_page(
        results, header, ended=ended, earlier=read_past_runs(earlier, limit), comparison=comparison, root=root
    )
    try:
        replace_file(path, page, mode=mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: the page cannot be written: {error.strerror}",
            hint="Free space or change the permissions, or choose another place.",
        ) from error
    return path


def journal_lines(
    results: Sequence[CellResult], header: Mapping[str, Any], ended: Ended, root: str | None = None
) -> Iterator[str]:
    """Return what the journal of a run would say of some cells, where it cannot be written."""
    yield journal_line({"type": "run", **envelope("journal", header, root)}, root)
    for result in results:
        yield journal_line({"type": "cell", "result": result.to_json()}, root)
    yield journal_line({"type": "end", "finished": header["finished"], "ended": ended})


def keys_in_journal(path: Path) -> set[CellKey]:
    """Return the cells that a journal really has: its file may have gone since it was written."""
    try:
        return {result.key for result in read_journal(path).results}
    except ConfigError:
        return set()


@dataclass
class Run:
    """What is left of a run.

    Attributes:
        id: Its id.
        directory: Its folder.
        started: When it began, ISO 8601; empty where its journal does not say.
        command: Its command line.
        cells: Number of finished cells by status.
        status: `passed`, `failed`, `interrupted`, `running`, or `ended early`: the process was killed, or left.
        last_test: The test that was started last, of a run that ended early.
        problems: What of its journal could not be read.
    """

    id: str
    directory: Path
    started: str = ""
    command: str = ""
    cells: dict[str, int] = field(default_factory=dict)
    status: str = "ended early"
    last_test: str = ""
    problems: list[str] = field(default_factory=list)


def list_runs(reports: Path) -> list[Run]:
    """Return the runs that have a folder in a directory of reports, oldest first."""
    return [_read_run(folder) for folder in run_folders(reports)]


def find_run(reports: Path, name: str, option: str) -> Path:
    """Return the folder of a run.

    Args:
        reports: The directory of all runs' reports.
        name: The run's id, its number, or its folder.
        option: What an error's message begins with.

    Raises:
        ConfigError: There is no such run.
    """
    folders = run_folders(reports)
    number = int(name) if name.isdecimal() else None
    named = [one for one in folders if one.name == name or int(one.name.partition("-")[0]) == number]
    for folder in (*named, Path(name).expanduser()):
        if (folder / JOURNAL).exists():
            return folder
    known = ", ".join(folder.name for folder in folders[-3:]) or "none"
    raise ConfigError(
        f"{option}={name}: there is no such run in {reports}. The last ones: {known}.",
        hint=f"`hfaccel runs --reports {reports}` lists them; a run's folder can be named, too.",
    )


def latest_run(reports: Path) -> Path | None:
    """Return the folder of the run that began last and has a journal; `None` where there is none."""
    return next((folder for folder in reversed(run_folders(reports)) if (folder / JOURNAL).exists()), None)


def find_cells(contents: JournalContents, name: str) -> tuple[list[CellResult], str]:
    """Return the cells of a run that a name means, and the check that it names besides.

    Args:
        contents: The run's journal.
        name: A cell's id (`gpt2-cuda0-fp16`), the same with the device as it is typed (`gpt2-cuda:0-fp16`), a wildcard
            over these, or the node id of a test. Letters' case does not count.

    Returns:
        The last record of each cell, once where several modules test it, and the check that a node id names; empty
        where it names none, or none of the run's.
    """
    text, check = name.strip().lower(), ""
    started = next((each for each in contents.starts if each["test"].lower() == text), {})
    if "::" in text:
        test, _, parameter = text.partition("[")
        check = started.get("check") or test.rpartition("::")[2].removeprefix("test_")
        text = started.get("cell", "").lower() or _POINT.sub("", parameter.removesuffix("]"))
    found: dict[tuple[str, ...], CellResult] = {}
    for result in contents.cells:
        typed = f"{result.cell.removesuffix(_slugs(result))}-{result.device}-{result.dtype}"
        if any(fnmatchcase(each.lower(), text) for each in (result.cell, typed)):
            found[result.model, result.device, result.dtype, result.weights] = result
    return list(found.values()), check


def _slugs(result: CellResult) -> str:
    return f"-{re.sub(r'[^a-z0-9.]', '', result.device.lower())}-{result.dtype}"


def _read_run(folder: Path) -> Run:
    try:
        lines = read_journal(folder / JOURNAL)
    except ConfigError as error:
        return Run(folder.name, folder, problems=[str(error)])
    about = lines.header.get("run", {})
    run = Run(folder.name, folder, about.get("started", ""), about.get("command", ""), problems=lines.problems)
    run.cells = dict(Counter(str(result.status) for result in lines.results))
    if lines.end.get("ended") == Ended.INTERRUPTED:
        run.status = str(Ended.INTERRUPTED)
    elif lines.end:
        run.status = "failed" if any(map(speaks_against, lines.results)) else "passed"
    elif is_running(folder):
        run.status = str(Ended.RUNNING)
    elif lines.starts:
        run.last_test = lines.starts[-1]["test"]
    return run


def run_folders(reports: Path) -> list[Path]:
    """Return the folders of runs by their numbers: in the order in which the runs began."""
    found = ((_ID.fullmatch(path.name), path) for path in (reports / RUNS).glob("*") if path.is_dir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def find_journals(path: Path) -> list[Path]:
    """Return the journals that a path names: one, that of a run's folder, or those below a directory of reports.

    The copies that a directory of reports has at its top level, of links in an archive, are left out.

    Raises:
        ConfigError: There is none.
    """
    if not path.is_dir():
        return [path]
    if (path / RUNS).is_dir():
        found = [folder / JOURNAL for folder in run_folders(path) if (folder / JOURNAL).is_file()]
    elif (path / JOURNAL).is_file():
        found = [path / JOURNAL]
    else:
        found = [journal for folder in _folders_in(path) for journal in _journals_or_none(folder)]
    if not found:
        raise ConfigError(
            f"{path}: there is no journal of a run here.",
            hint="Name folders of runs, journals, or directories of reports (--hf-reports).",
        )
    return found


def _folders_in(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir())


def _journals_or_none(folder: Path) -> list[Path]:
    try:
        return find_journals(folder)
    except ConfigError:
        return []


def is_running(directory: Path) -> bool:
    """Whether the process of a run is still there, also where it has been stopped."""
    if not (directory / _ALIVE).exists():
        return False
    try:
        with FileLock(directory / _ALIVE, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:  # the reports of another machine, say, on a disk that cannot be written
        return False


@contextmanager
def _one_at_a_time(reports: Path) -> Iterator[None]:
    (reports / RUNS).mkdir(parents=True, exist_ok=True)
    with FileLock(reports / RUNS / ".lock", timeout=_LOCK_SECONDS):
        yield


def _show(reports: Path, run: str) -> None:
    """Let the top level show a run."""
    latest = reports / LATEST
    if not latest.is_symlink() and not latest.exists():
        _put_aside(reports)
    try:
        _link(latest, Path(RUNS) / run)
        for name in _SHOWN:
            _link(reports / name, Path(LATEST) / name)
    except OSError:
        _copy(reports, run)


def _link(link: Path, target: Path) -> None:
    """Make a symbolic link, in the place of another or of a copy."""
    if link.is_symlink() and link.readlink() == target:
        return
    new = link.with_name(f".{link.name}.{token_hex(4)}.new")
    new.symlink_to(target)
    try:
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        new.replace(link)
    finally:
        new.unlink(missing_ok=True)


def _copy(reports: Path, run: str) -> None:
    folder = reports / RUNS / run
    for name in _SHOWN:
        source, place = folder / name, reports / name
        if source.is_dir():
            new = place.with_name(f".{name}.{token_hex(4)}.new")
            shutil.copytree(source, new)
            if place.exists():
                shutil.rmtree(place)
            new.replace(place)
        elif source.exists():
            replace_file(place, source.read_bytes(), mode=source.stat().st_mode & 0o777)
        else:
            place.unlink(missing_ok=True)
    replace_file(reports / LATEST, run + "\n")


def _latest_copied(reports: Path) -> str:
    try:
        return (reports / LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _put_aside(reports: Path) -> None:
    """Move files away that are in the place of the links: no run with a folder of its own wrote them."""
    before = reports / RUNS / f"{_BEFORE}-{token_hex(2)}"
    for name in _SHOWN:
        place = reports / name
        if place.exists() and not place.is_symlink():
            before.mkdir(exist_ok=True)
            place.replace(before / name)
