"""The ledger: what is granted when, to whom, in which order, and what it says where it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError, PoolExhausted
from pytest_hfaccel.pool import ledger as ledger_module
from pytest_hfaccel.pool.ledger import TURNS, Ledger, is_alive, start_mark, turns_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    made = Ledger(path)
    made.set_limit("host", lambda: 100, is_share=False)
    return made


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked process, which ends with 0 if it returns something true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return pid


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def labels(ledger: Ledger, *, granted: bool) -> list[object]:
    return [entry["label"] for entry in ledger.usage() if entry["is_granted"] is granted]


def test_what_fits_is_granted_at_once_and_given_back(ledger: Ledger) -> None:
    with ledger.claim({"host": 60}, "one"), ledger.claim({"host": 40, "cuda:0": 10**12}, "two"):
        assert [entry["amounts"] for entry in ledger.usage()] == [{"host": 60}, {"cuda:0": 10**12, "host": 40}]
    assert ledger.usage() == []
    assert ledger.waits == 0


def test_another_process_waits_until_there_is_room(ledger: Ledger) -> None:
    claim = ledger.claim({"host": 60}, "parent")
    child = in_child(lambda: ledger.claim({"host": 50}, "child") and ledger.waits)
    wait_until(lambda: labels(ledger, granted=False) == ["child"])
    assert ledger.is_waited_for("host")
    assert not ledger.is_waited_for("cuda:0")
    claim.release()
    assert code_of(child) == 0
    assert ledger.usage() == []


def test_a_correction_makes_room(ledger: Ledger) -> None:
    claim = ledger.claim({"host": 100}, "parent")
    child = in_child(lambda: ledger.claim({"host": 50}, "child"))
    wait_until(lambda: labels(ledger, granted=False) == ["child"])
    claim.resize({"host": 50})
    assert code_of(child) == 0


def test_a_large_claim_is_not_overtaken_by_those_that_would_delay_it(ledger: Ledger) -> None:
    first = ledger.claim({"host": 60}, "first")
    large = in_child(lambda: ledger.claim({"host": 90}, "large") and ledger.usage()[0]["label"] == "large")
    wait_until(lambda: labels(ledger, granted=False) == ["large"])
    small = in_child(lambda: ledger.claim({"host": 20}, "small"))
    wait_until(lambda: labels(ledger, granted=False) == ["large", "small"])
    time.sleep(0.3)
    assert labels(ledger, granted=True) == ["first"]  # 40 are free, and the small one still comes second
    first.release()
    assert code_of(large) == 0
    assert code_of(small) == 0


def test_a_claim_on_two_devices_takes_none_before_it_gets_both(ledger: Ledger) -> None:
    ledger.set_limit("cuda:0", lambda: 10, is_share=False)
    claim = ledger.claim({"cuda:0": 10}, "parent")
    child = in_child(lambda: ledger.claim({"host": 50, "cuda:0": 10}, "both"))
    wait_until(lambda: labels(ledger, granted=False) == ["both"])
    with ledger.claim({"host": 50}, "beside"):  # so no two can wait for what the other has
        pass
    claim.release()
    assert code_of(child) == 0


def test_processes_that_wait_for_each_other_are_told_with_the_numbers(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_STUCK_SECONDS", 0.3)
    ledger.claim({"host": 50}, "parent")

    def take_and_ask_for_more() -> bool:
        with ledger.claim({"host": 50}, "child"):
            wait_until(lambda: labels(ledger, granted=False) == ["parent, more"])
            try:
                ledger.claim({"host": 10}, "child, more")
            except PoolExhausted as error:
                return "child, more needs 10 B on host" in str(error) and "100 B on host are taken" in str(error)
        return False

    child = in_child(take_and_ask_for_more)
    wait_until(lambda: "child" in labels(ledger, granted=True))
    with ledger.claim({"host": 20}, "parent, more"):  # granted, because the other, who asked last, was refused
        assert code_of(child) == 0


def test_alone_is_alone(ledger: Ledger) -> None:
    time_of_host = turns_of("host")
    turn = ledger.claim({time_of_host: 1}, "computing")
    measuring = in_child(
        lambda: ledger.claim({time_of_host: TURNS}, "measuring") and labels(ledger, granted=True) == ["measuring"]
    )
    wait_until(lambda: labels(ledger, granted=False) == ["measuring"])
    late = in_child(lambda: ledger.claim({time_of_host: 1}, "late"))
    wait_until(lambda: labels(ledger, granted=False) == ["measuring", "late"])
    assert labels(ledger, granted=True) == ["computing"]
    turn.release()
    assert code_of(measuring) == 0
    assert code_of(late) == 0


def test_whoever_waits_for_a_process_that_computes_is_not_stuck(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_STUCK_SECONDS", 0.1)
    time_of_host = turns_of("host")
    turn = ledger.claim({time_of_host: 1}, "computing")  # with a model that is kept for later: without memory

    def measure() -> bool:
        with ledger.claim({"host": 10}, "a model"), ledger.claim({time_of_host: TURNS}, "measuring"):
            return True

    measuring = in_child(measure)
    wait_until(lambda: labels(ledger, granted=False) == ["measuring"])
    time.sleep(0.5)  # long after nothing has moved any more
    assert labels(ledger, granted=False) == ["measuring"]
    turn.release()
    assert code_of(measuring) == 0


def test_the_smallest_limit_counts_and_that_of_a_process_that_has_ended_does_not(path: Path, ledger: Ledger) -> None:
    child = in_child(lambda: Ledger(path).set_limit("host", lambda: 40, is_share=False) == 40)
    assert code_of(child) == 0
    assert ledger.set_limit("host", lambda: 100, is_share=False) == 100


def test_a_share_is_that_of_the_process_that_looked_first(ledger: Ledger) -> None:
    assert ledger.set_limit("cuda:0", lambda: 70, is_share=True) == 70
    assert code_of(in_child(lambda: ledger.set_limit("cuda:0", lambda: 21, is_share=True) == 70)) == 0
    assert ledger.set_limit("xpu:0", lambda: None, is_share=True) is None


def test_a_forked_child_leaves_its_parents_claims_alone(ledger: Ledger) -> None:
    claim = ledger.claim({"host": 60}, "parent")

    def end() -> bool:
        claim.resize({"host": 1})
        claim.release()
        ledger.close()
        return True

    assert code_of(in_child(end)) == 0
    assert ledger.usage()[0]["amounts"] == {"host": 60}


def test_threads_of_a_process_share_one_connection(ledger: Ledger) -> None:
    def work() -> None:
        for _ in range(20):
            with ledger.claim({"host": 60}, "thread"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert ledger.usage() == []


def test_measured_amounts_are_kept(path: Path, ledger: Ledger) -> None:
    ledger.remember("gpt2 tiny cpu fp32", {"host": 7})
    ledger.remember("gpt2 tiny cpu fp32", {"host": 9, "cuda:0": 1})
    ledger.close()
    assert Ledger(path).measured("gpt2 tiny cpu fp32") == {"cuda:0": 1, "host": 9}
    assert Ledger(path).measured("bert tiny cpu fp32") == {}


def test_a_process_is_not_taken_for_another_one_with_its_id() -> None:
    mark = start_mark(os.getpid()) or ""
    assert is_alive(os.getpid(), mark)
    boot, _, ticks = mark.rpartition(" ")
    assert not is_alive(os.getpid(), f"{boot} {int(ticks) + 1}")
    assert is_alive(os.getpid(), f"{boot.rpartition(' ')[0]} pid:[1] {ticks}")  # of another container: not ours to say
    assert not is_alive(os.getpid(), f"another-boot pid:[1] {ticks}")


def test_a_process_that_ended_and_was_not_asked_about_lives_no_longer() -> None:
    pid = in_child(lambda: True)
    wait_until(lambda: start_mark(pid) is None)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("content", [b"no database", os.urandom(8192)], ids=["text", "noise"])
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be read or written.*\n.*HFACCEL_LEDGER"):
        Ledger(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(ConfigError, match="this is a database, but no ledger"):
        Ledger(path)


def test_a_place_where_it_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="unable to open database file"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_ledger_that_is_damaged_during_a_run_is_an_error_not_a_wait(path: Path, ledger: Ledger) -> None:
    ledger.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be read or written"):
        Ledger(path).claim({"host": 1}, "one")
