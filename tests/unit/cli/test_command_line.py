"""The command line of `hfaccel` itself."""

from __future__ import annotations

import pytest

from pytest_hfaccel.cli import main


@pytest.mark.parametrize(
    ("command", "listed"),
    [
        ([], ["init", "doctor", "compare", "make a project ready to test its models"]),
        (["registry"], ["list", "check", "add", "sync"]),
        (["db"], ["info", "export", "import", "migrate"]),
    ],
)
def test_without_a_command_the_commands_are_listed(
    command: list[str], listed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(name in printed.err for name in listed)
