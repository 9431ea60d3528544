"""The journal survives kills, full disks and the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.reporting import Journal, read_journal
from tests.unit.reporting.report_samples import HEADER, sample_results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "journal.jsonl"


def test_what_is_written_is_read_back(path: Path) -> None:
    journal = Journal(path, HEADER)
    for result in sample_results():
        journal.append(result)
    assert read_journal(path).results == sample_results()  # while the run goes on
    assert not read_journal(path).is_complete
    journal.close()
    journal.close()
    read = read_journal(path)
    assert read.header["schema"] == "pytest-hfaccel/journal"
    assert read.header["machine"] == HEADER["machine"]
    assert read.header["run"]["command"] == HEADER["command"]
    assert (read.results, read.problems, read.is_complete) == (sample_results(), [], True)


def test_a_killed_process_loses_nothing_that_was_appended(path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from pytest_hfaccel.reporting import Journal\n"
        "from tests.unit.reporting.report_samples import HEADER, sample_results\n"
        "journal = Journal(Path(sys.argv[1]), HEADER)\n"
        "[journal.append(result) for result in sample_results()[:3]]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=60)
    assert killed.returncode == -9
    contents = read_journal(path)
    assert contents.results == sample_results()[:3]
    assert (contents.problems, contents.is_complete) == ([], False)


def test_a_torn_last_line_is_reported_and_the_rest_is_read(path: Path) -> None:
    with closing(Journal(path, HEADER)) as journal:
        for result in sample_results()[:2]:
            journal.append(result)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:50])
    contents = read_journal(path)
    assert contents.results == sample_results()[:1]
    (problem,) = contents.problems
    assert problem.startswith(f"{path}:3: this line is torn")


def test_a_damaged_line_in_the_middle_is_reported(path: Path) -> None:
    with closing(Journal(path, HEADER)) as journal:
        for result in sample_results()[:2]:
            journal.append(result)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '["no object"]', '{"type": "cell"}', *lines[2:]]))
    contents = read_journal(path)
    assert contents.results == sample_results()[1:2]
    assert [problem.split(" (")[0] for problem in contents.problems] == [
        f"{path}:2: this line is damaged",
        f"{path}:3: this line is damaged",
    ]


def test_a_journal_that_is_not_there(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"journal\.jsonl: the journal cannot be read: No such file"):
        read_journal(path)


def test_a_changed_byte_is_noticed_wherever_it_is(path: Path) -> None:
    with closing(Journal(path, HEADER)) as journal:
        journal.append(sample_results()[0])
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        if whole[place : place + 1] not in b"0123456789abcdef":
            continue
        path.write_bytes(whole[:place] + (b"7" if whole[place : place + 1] != b"7" else b"8") + whole[place + 1 :])
        assert len(read_journal(path).problems) == 1, place


def test_a_journal_of_an_earlier_version_has_no_checksums(path: Path) -> None:
    with closing(Journal(path, HEADER)) as journal:
        journal.append(sample_results()[0])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bare = [{name: value for name, value in line.items() if name != "crc"} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in bare), encoding="utf-8")
    assert read_journal(path).results == sample_results()[:1]
    assert read_journal(path).problems == []


def test_a_journal_is_never_written_over(path: Path) -> None:
    Journal(path, HEADER).close()
    with pytest.raises(ConfigError, match="the journal cannot be written: File exists"):
        Journal(path, HEADER)


def test_a_line_that_does_not_fit_on_the_disk_leaves_the_others_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path, HEADER)
    first, second, third, *_ = sample_results()
    journal.append(first)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            ConfigError, match=r"journal\.jsonl: the journal cannot be written: No space left on device"
        ):
            journal.append(second)
    journal.append(third)
    journal.close()
    assert read_journal(path).results == [first, third]
    assert read_journal(path).problems == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(ConfigError, match=r"the journal cannot be written: .*\nFree space or change the permissions"):
        Journal(tmp_path / "reports" / "journal.jsonl", HEADER)


def test_no_token_is_written(path: Path) -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    result = sample_results()[2]
    result.checks[1].reason = f"gated: {token}"
    with closing(Journal(path, {"options": {"models": [token]}})) as journal:
        journal.append(result)
    text = path.read_text(encoding="utf-8")
    assert token not in text
    assert json.loads(text.splitlines()[1])["result"]["reason"] == "gated: hf_***"


def test_a_line_that_is_nested_too_deeply_is_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(
        '{"type": "run"}\n' + "[" * 100_000 + '\n{"type": "end", "finished": "now"}\n'
    )  # of a version without checksums
    contents = read_journal(path)
    assert contents.is_complete
    assert [problem.split(" (")[0] for problem in contents.problems] == [f"{path}:2: this line is damaged"]
