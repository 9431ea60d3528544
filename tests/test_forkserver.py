"""A fork does what a new process does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import environment, run_python

PROGRAM = """
import os, sys
print(sys.argv, os.getcwd(), os.environ["ASKED"], sys.stdin.read(), __name__)
print("an error", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending",
    [
        "",
        "raise SystemExit(3)",
        "raise SystemExit('so it ends')",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import atexit, threading; atexit.register(print, 'exit'); threading.Timer(0.1, print, ['thread']).start()",
        "import warnings; warnings.warn('watch out', RuntimeWarning)",
    ],
)
@pytest.mark.parametrize("by", ["-c", "file", "-m"])
def test_a_fork_says_and_ends_as_a_new_process(tmp_path: Path, ending: str, by: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + ending, encoding="utf-8")
    arguments = {"-c": ["-c", PROGRAM + ending], "file": ["program.py"], "-m": ["-m", "program"]}[by]
    command = ["-W", "error::RuntimeWarning", *arguments, "one", "two"]
    env = environment(tmp_path, ASKED="a value")
    forked, started = (run_python(command, tmp_path, env, given="some input", new_process=new) for new in (False, True))
    assert forked.returncode == started.returncode
    assert forked.stdout == started.stdout
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]
