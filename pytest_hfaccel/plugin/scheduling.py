"""How pytest-xdist deals tests to workers: a model's cells stay together, so that one worker keeps its lease.

xdist's own `--dist loadgroup` rewrites node ids, which pytest 9.2 no longer lets it do: there it silently deals every
test on its own. This scheduler reads the group out of the test's id instead.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

from pytest_hfaccel.plugin.parametrize import EXTRA_SEPARATOR
from pytest_hfaccel.spec import DTYPES

_CELL = re.compile(rf"(?P<model>.+)-[a-z0-9.]+-(?:{'|'.join(DTYPES)})")


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
    cell = parameter.rstrip("]").partition(EXTRA_SEPARATOR)[0]
    found = _CELL.fullmatch(cell)
    return found["model"] if found else cell
