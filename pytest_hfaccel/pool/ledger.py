"""The ledger of a machine's devices: which process has how much of what, in an SQLite file that all of them open.

    ledger = Ledger(path)
    ledger.set_limit("host", 8 * 2**30)
    with ledger.claim({"host": 2**30, "cuda:0": 5 * 2**30}, "gpt2-cuda0-fp16"):
        ...

A claim names everything that a piece of work needs and is granted as a whole, so that no process waits for one thing
while it has another. Claims are granted in the order in which they were made; a later one overtakes an earlier one only
where there is room for both, so that a large one is served, too. What a process had that no longer lives is free: a
process is known by its id and the moment it started, in ticks since the machine did. No clock decides anything: order
is the order of rows, and waiting is polling.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError, HfAccelError, PoolExhausted, format_bytes

if TYPE_CHECKING:
    from typing import Self

_APPLICATION_ID = 0x48464C47
"""`HFLG` in the file's header: what tells a ledger from another program's database."""
_VERSION = 1
_SCHEMA = """
CREATE TABLE process (id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, started TEXT NOT NULL, UNIQUE (pid, started));
CREATE TABLE capacity (process INTEGER NOT NULL, resource TEXT NOT NULL, amount INTEGER NOT NULL,
    is_share INTEGER NOT NULL, PRIMARY KEY (process, resource)) WITHOUT ROWID;
CREATE TABLE claim (id INTEGER PRIMARY KEY AUTOINCREMENT, process INTEGER NOT NULL, label TEXT NOT NULL,
    is_granted INTEGER NOT NULL, is_idle INTEGER NOT NULL);
CREATE TABLE part (claim INTEGER NOT NULL, resource TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (claim, resource)) WITHOUT ROWID;
CREATE TABLE measured (key TEXT NOT NULL, resource TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (key, resource)) WITHOUT ROWID;
"""

_BUSY_SECONDS = 60.0
"""How long a statement waits for another process's transaction; those take less than a millisecond."""
_FIRST_POLL, _LAST_POLL = 0.005, 0.1
"""Seconds between looks at the ledger while waiting: short at first, then long enough to cost a core nothing."""
_STUCK_SECONDS = 2.0
"""For so long nothing may move before processes that wait for each other are said to be stuck."""

TURNS = 1_000_000
"""How much there is of the time of a device: each that uses it takes 1, one that is to be alone takes all."""


def turns_of(resource: str) -> str:
    """Return the name under which the computing time of a device is claimed: `time of host`, `time of cuda:0`."""
    return f"{_TIME}{resource}"


_TIME = "time of "


class Claim:
    """What a process has been granted, until `release`.

    Args:
        ledger: Where it is entered.
        number: Its row.
        amounts: How much of what.
    """

    def __init__(self, ledger: Ledger, number: int, amounts: Mapping[str, int]) -> None:
        self._ledger = ledger
        self._number = number
        self._pid = os.getpid()
        self.amounts = dict(amounts)

    def resize(self, amounts: Mapping[str, int]) -> None:
        """Enter what is really used, without waiting: memory that is taken is taken, whether it was granted or not."""
        changed = {name: amount for name, amount in amounts.items() if self.amounts.get(name) != amount}
        if changed and self._pid == os.getpid():
            self._ledger.enter(self._number, changed)
            self.amounts.update(changed)

    def release(self) -> None:
        """Give it back. A second call does nothing, nor does one in a forked child, which has nothing to give."""
        if self._number and self._pid == os.getpid():
            self._ledger.drop(self._number)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Ledger:
    """The ledger in a file, which is made if it is not there. Safe to use from any process, thread and forked child.

    Args:
        path: The file. It must be on a disk of this machine: SQLite's shared memory does not reach over a network.

    Raises:
        ConfigError: The file cannot be opened or written, is damaged, or is something else.

    Attributes:
        waits: How many claims had to wait.
        waited_seconds: For how long, all together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waits = 0
        self.waited_seconds = 0.0
        self._lock = threading.RLock()
        self._connections: dict[int, sqlite3.Connection] = {}  # one per process id: a forked child closes no parent's
        self._process: tuple[int, int] = (0, 0)
        with self._transaction():
            pass

    def close(self) -> None:
        """Give back everything that this process has, and close the file. A second call does nothing."""
        with self._lock:
            connection = self._connections.get(os.getpid())
            if connection is None:
                return
            with suppress(HfAccelError), self._transaction() as rows:
                self._forget(rows, self._row_of_this(rows))
            connection.close()
            del self._connections[os.getpid()]
            self._process = (0, 0)

    def set_limit(self, resource: str, ask: Callable[[], int | None], *, is_share: bool) -> int | None:
        """Enter how much of a resource this process lets all of them have together, and return the smallest limit.

        Args:
            resource: A device, or `host`.
            ask: Returns it; `None` for no limit.
            is_share: Whether it is a share of what is free right now. Then what another process has found counts: the
                second one would find less, because the first has taken its share.
        """
        with self._transaction() as rows:
            process = self._row_of_this(rows)
            self._reclaim(rows)
            known = rows.execute(
                "SELECT amount FROM capacity WHERE resource = ? AND is_share = 1 LIMIT 1", (resource,)
            ).fetchone()
            limit = known[0] if known and is_share else ask()
            if limit is not None:
                rows.execute("REPLACE INTO capacity VALUES (?, ?, ?, ?)", (process, resource, limit, is_share))
            found = rows.execute("SELECT min(amount) FROM capacity WHERE resource = ?", (resource,)).fetchone()[0]
            return None if found is None else int(found)

    def claim(
        self,
        amounts: Mapping[str, int],
        label: str,
        *,
        while_waiting: Callable[[float], object] = lambda _: None,
    ) -> Claim:
        """Wait until there is room for all of these amounts, and take them.

        Args:
            amounts: Bytes by device, turns by `turns_of(device)`. What nobody has set a limit for is entered only.
            label: For whom, in messages.
            while_waiting: Called after each look that found no room, with the seconds since the last one, e.g. to free
                what this process has and does not need.

        Raises:
            PoolExhausted: An amount is larger than the limit, which no waiting changes; or the processes that could
                give something back all wait for this one. With the numbers.
            HfAccelError: The ledger can no longer be read or written.
        """
        number = self._enter(amounts, label)
        waits = _Wait()
        try:
            while not self._try_to_grant(number, waits):
                while_waiting(waits.pause())
        except BaseException:
            with suppress(HfAccelError):
                self.drop(number)
            raise
        finally:
            self.waits += waits.looks > 0
            self.waited_seconds += waits.seconds
        return Claim(self, number, amounts)

    def note_idle(self, amounts: Mapping[str, int], label: str) -> Claim:
        """Enter what this process keeps although nothing uses it, without waiting; it gives it up when asked."""
        return Claim(self, self._enter(amounts, label, is_idle=True), amounts)

    def is_waited_for(self, resource: str) -> bool:
        """Whether another process waits for some of a resource."""
        with self._transaction() as rows:
            self._reclaim(rows)
            return bool(
                rows.execute(
                    "SELECT 1 FROM part JOIN claim ON claim.id = part.claim WHERE resource = ? AND NOT is_granted "
                    "AND process != ? LIMIT 1",
                    (resource, self._row_of_this(rows)),
                ).fetchone()
            )

    def remember(self, key: str, amounts: Mapping[str, int]) -> None:
        """Enter what something has been measured to need, for the next time that anybody asks."""
        with self._transaction() as rows:
            rows.executemany("REPLACE INTO measured VALUES (?, ?, ?)", [(key, *one) for one in amounts.items()])

    def measured(self, key: str) -> dict[str, int]:
        """Return what something was measured to need, by resource; empty where nobody has measured it."""
        with self._transaction() as rows:
            return dict(rows.execute("SELECT resource, amount FROM measured WHERE key = ?", (key,)).fetchall())

    def usage(self) -> list[dict[str, object]]:
        """Return the claims in their order: `pid`, `label`, `is_granted`, and `amounts` by resource."""
        with self._transaction() as rows:
            self._reclaim(rows)
            found: dict[int, dict[str, object]] = {}
            for number, pid, label, granted, resource, amount in rows.execute(
                "SELECT claim.id, pid, label, is_granted, resource, amount FROM claim JOIN process "
                "ON process.id = claim.process JOIN part ON part.claim = claim.id ORDER BY claim.id, resource"
            ):
                entry = found.setdefault(
                    number, {"pid": pid, "label": label, "is_granted": bool(granted), "amounts": {}}
                )
                entry["amounts"][resource] = amount  # type: ignore[index]
            return list(found.values())

    def enter(self, number: int, amounts: Mapping[str, int]) -> None:
        """Change amounts of a claim; see `Claim.resize`."""
        with self._transaction() as rows:
            rows.executemany("REPLACE INTO part VALUES (?, ?, ?)", [(number, *one) for one in amounts.items()])

    def drop(self, number: int) -> None:
        """Remove a claim; see `Claim.release`."""
        with self._transaction() as rows:
            rows.execute("DELETE FROM part WHERE claim = ?", (number,))
            rows.execute("DELETE FROM claim WHERE id = ?", (number,))

    def _enter(self, amounts: Mapping[str, int], label: str, *, is_idle: bool = False) -> int:
        with self._transaction() as rows:
            values = (self._row_of_this(rows), label, is_idle, is_idle)
            number = rows.execute("INSERT INTO claim VALUES (NULL, ?, ?, ?, ?)", values).lastrowid
            rows.executemany("INSERT INTO part VALUES (?, ?, ?)", [(number, *one) for one in amounts.items()])
            return int(number or 0)

    def _try_to_grant(self, number: int, waits: _Wait) -> bool:
        with self._transaction() as rows:
            self._reclaim(rows)
            process, label = rows.execute("SELECT process, label FROM claim WHERE id = ?", (number,)).fetchone()
            holds = _holds_memory(rows, process)
            short = []
            for resource, amount in rows.execute("SELECT resource, amount FROM part WHERE claim = ?", (number,)):
                limit, granted, earlier = _state_of(rows, resource, number)
                if limit is None:
                    continue
                if amount > limit:
                    raise PoolExhausted(
                        f"{label} needs {_text(resource, amount)}, and the budget of all processes together is "
                        f"{_text(resource, limit)}: it can never run.",
                        hint="Raise the budget: HFACCEL_POOL_MEMORY='8GiB' or '90%'.",
                    )
                # Whoever has memory already does not queue behind those that may be waiting for it.
                ahead = granted if holds else granted + earlier
                if ahead + amount > limit:
                    short.append((resource, amount, limit, granted))
            if not short:
                rows.execute("UPDATE claim SET is_granted = 1 WHERE id = ?", (number,))
                return True
            if waits.is_stuck(rows.execute("SELECT total(amount), count(*), max(claim) FROM part").fetchone()):
                self._refuse_if_stuck(rows, number, process, label, short)
            return False

    def _refuse_if_stuck(
        self,
        rows: sqlite3.Connection,
        number: int,
        process: int,
        label: str,
        short: list[tuple[str, int, int, int]],
    ) -> None:
        """Refuse a claim if everybody who has memory, or what the claim is short of, waits too, and it came last."""
        if not _holds_memory(rows, process):
            return  # it is served when those who have memory have ended
        waiting = dict(rows.execute("SELECT process, max(id) FROM claim WHERE NOT is_granted GROUP BY process"))
        holders = {row[0] for row in rows.execute("SELECT DISTINCT process FROM claim WHERE is_granted")}
        # A process that computes with a model that is kept for later has nothing but time, and gives it back.
        wanted = [resource for resource, *_ in short]
        holders = {one for one in holders if _holds_memory(rows, one) or _holds_any(rows, one, wanted)}
        if holders <= waiting.keys() and number == max(waiting[holder] for holder in holders):
            lines = [
                f"  process {entry['pid']}: {entry['label']}: "
                + ", ".join(_text(name, amount) for name, amount in entry["amounts"].items())  # type: ignore[attr-defined]
                + ("" if entry["is_granted"] else " (waits)")
                for entry in self.usage()
            ]
            resource, amount, limit, granted = short[0]
            raise PoolExhausted(
                f"{label} needs {_text(resource, amount)} more; of the budget of {_text(resource, limit)}, "
                f"{_text(resource, granted)} are taken, by processes that all wait for each other:\n"
                + "\n".join(lines),
                hint="Release models before asking for others, or raise the budget: HFACCEL_POOL_MEMORY.",
            )

    def _reclaim(self, rows: sqlite3.Connection) -> None:
        """Forget the processes that no longer live."""
        for process, pid, started in rows.execute("SELECT id, pid, started FROM process").fetchall():
            if not is_alive(pid, started):
                self._forget(rows, process)

    def _forget(self, rows: sqlite3.Connection, process: int) -> None:
        rows.execute("DELETE FROM part WHERE claim IN (SELECT id FROM claim WHERE process = ?)", (process,))
        rows.execute("DELETE FROM claim WHERE process = ?", (process,))
        rows.execute("DELETE FROM capacity WHERE process = ?", (process,))
        rows.execute("DELETE FROM process WHERE id = ?", (process,))

    def _row_of_this(self, rows: sqlite3.Connection) -> int:
        pid = os.getpid()
        if self._process[0] != pid:
            mine = (pid, start_mark(pid) or "")
            rows.execute("INSERT OR IGNORE INTO process VALUES (NULL, ?, ?)", mine)
            row = rows.execute("SELECT id FROM process WHERE pid = ? AND started = ?", mine).fetchone()
            self._process = (pid, row[0])
        return self._process[1]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Read and write with no other process in between."""
        with self._lock, self._errors_named():
            rows = self._connections.get(os.getpid())
            if rows is None:
                rows = self._connections[os.getpid()] = self._open()
            if rows.in_transaction:
                yield rows  # inside another one of this thread
                return
            rows.execute("BEGIN IMMEDIATE")
            try:
                yield rows
            except BaseException:
                rows.execute("ROLLBACK")
                self._process = (0, 0)  # its row may have been entered in this transaction
                raise
            rows.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _switch_to_wal(rows)
            rows.execute("PRAGMA synchronous = NORMAL")
            rows.execute("BEGIN IMMEDIATE")
            found = rows.execute("PRAGMA application_id").fetchone()[0]
            version = rows.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and not rows.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";"):
                    rows.execute(statement)
                rows.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                rows.execute(f"PRAGMA user_version = {_VERSION}")
            elif (found, version) != (_APPLICATION_ID, _VERSION):
                what = f"a ledger of version {version}, not {_VERSION}" if found == _APPLICATION_ID else "no ledger"
                raise self._problem(f"this is a database, but {what}")
            rows.execute("COMMIT")
        except BaseException:
            rows.close()
            raise
        return rows

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._problem(f"the ledger cannot be read or written: {error}") from error

    def _problem(self, text: str) -> ConfigError:
        return ConfigError(
            f"{self.path}: {text}.",
            hint="Remove the file, or name another one with HFACCEL_LEDGER: on a disk of this machine, in a directory "
            "that this user may write to.",
        )


class _Wait:
    """The looks of one claim at the ledger: how long between them, and whether anything has moved since."""

    def __init__(self) -> None:
        self.looks = 0
        self.seconds = 0.0
        self._seen: object = None
        self._since = 0.0

    def pause(self) -> float:
        """Sleep, longer from one look to the next; return the seconds."""
        began = time.monotonic()
        time.sleep(min(_LAST_POLL, _FIRST_POLL * 2 ** min(self.looks, 8)))
        self.looks += 1
        seconds = time.monotonic() - began
        self.seconds += seconds
        return seconds

    def is_stuck(self, seen: object) -> bool:
        """Whether the ledger has looked the same for long."""
        if seen != self._seen:
            self._seen, self._since = seen, self.seconds
        return self.seconds - self._since >= _STUCK_SECONDS


def _state_of(rows: sqlite3.Connection, resource: str, number: int) -> tuple[int | None, int, int]:
    """Return the limit of a resource, what is granted of it, and what claims that were made earlier wait for."""
    granted, earlier = rows.execute(
        "SELECT coalesce(sum(amount * is_granted), 0), coalesce(sum(amount * (NOT is_granted AND claim.id < ?)), 0) "
        "FROM part JOIN claim ON claim.id = part.claim WHERE resource = ?",
        (number, resource),
    ).fetchone()
    if resource.startswith(_TIME):
        return TURNS, granted, earlier
    return (
        rows.execute("SELECT min(amount) FROM capacity WHERE resource = ?", (resource,)).fetchone()[0],
        granted,
        earlier,
    )


def _holds_memory(rows: sqlite3.Connection, process: int) -> bool:
    found = rows.execute(
        "SELECT 1 FROM part JOIN claim ON claim.id = part.claim WHERE process = ? AND is_granted AND NOT is_idle "
        "AND amount > 0 AND resource NOT LIKE ? LIMIT 1",
        (process, f"{_TIME}%"),
    ).fetchone()
    return found is not None


def _holds_any(rows: sqlite3.Connection, process: int, resources: list[str]) -> bool:
    query = (
        "SELECT DISTINCT resource FROM part JOIN claim ON claim.id = part.claim "
        "WHERE process = ? AND is_granted AND NOT is_idle AND amount > 0"
    )
    return any(resource in resources for (resource,) in rows.execute(query, (process,)))


def _switch_to_wal(rows: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; while another process does the same, SQLite refuses without waiting."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            rows.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_FIRST_POLL)
        else:
            return


def _text(resource: str, amount: int) -> str:
    if resource.startswith(_TIME):
        return f"{resource} alone" if amount == TURNS else resource
    return f"{format_bytes(amount)} on {resource}"


_PROC = Path("/proc")


def start_mark(pid: int) -> str | None:
    """Return what tells a process from an earlier one with the same id: when it started. `None` where none lives.

    On Linux that is the machine's boot, the namespace of process ids, and ticks since the boot: setting the clock
    changes none of them. A process that has ended and that its parent has not asked about lives no longer.
    """
    if not (_PROC / "self").exists():
        import psutil

        try:
            return str(psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]  # fields 3 and 22 of proc_pid_stat(5); the name before may contain anything
    return None if state in "ZX" else f"{_namespace()} {ticks}"


def is_alive(pid: int, mark: str) -> bool:
    """Whether the process with this id and start lives; one in another namespace of ids, which cannot be seen, does."""
    namespace = mark.rpartition(" ")[0]
    if namespace and namespace != _namespace() and namespace.partition(" ")[0] == _namespace().partition(" ")[0]:
        return True
    return start_mark(pid) == mark


@lru_cache(maxsize=1)
def _namespace() -> str:
    """Name the boot of the machine and the namespace of process ids; empty where `/proc` does not say."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""
