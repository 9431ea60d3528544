"""How pytest-xdist deals tests to workers: a model's cells stay together, so that one worker keeps its lease.

xdist's own `--dist loadgroup` rewrites node ids, which pytest 9.2 no longer lets it do: there it silently deals every
test on its own. This scheduler reads the group out of the test's id instead.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from pytest_hfaccel.plugin.parametrize import read_id


class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is an optional dependency: Any to mypy
    """Groups by model; any other test is a group of its own."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the group of a test, given its node id."""
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the model's slug for a test of a model class, else the node id itself."""
    _, bracket, parameter = nodeid.partition("[")
    if not bracket:
        return nodeid
    return read_id(parameter.rstrip("]"))[1]
