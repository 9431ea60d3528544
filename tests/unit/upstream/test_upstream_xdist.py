"""What we reach of pytest-xdist and execnet is where it was; that it helps: `tests/faults/test_a_worker_dies.py`."""

from __future__ import annotations

import inspect

import pytest

from pytest_hfaccel.upstream.xdist import exit_code

dsession = pytest.importorskip("xdist.dsession", reason="xdist is an extra of this package")


def test_the_controller_has_the_names_that_are_patched() -> None:
    from execnet.multi import Group
    from xdist.workermanage import NodeManager

    source = inspect.getsource(dsession.DSession)
    assert "self.shouldstop" in source
    assert "self.nodemanager" in source
    assert list(inspect.signature(NodeManager.setup_node).parameters) == ["self", "spec", "putevent"]
    assert "self.group" in inspect.getsource(NodeManager)
    assert callable(Group.allocate_id)


@pytest.mark.parametrize(("death", "expected"), [("_exit(7)", 7), ("kill(os.getpid(), 9)", -9)])
def test_the_exit_of_a_worker_is_known(death: str, expected: int) -> None:
    import execnet

    group = execnet.Group()
    gateway = group.makegateway("popen")
    gateway.remote_exec(f"import os; os.{death}")
    try:
        assert exit_code(gateway) == expected
    finally:
        group.terminate(timeout=1)


def test_a_worker_on_another_machine_has_no_exit_code() -> None:
    assert exit_code(object()) is None
