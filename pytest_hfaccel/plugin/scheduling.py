"""How pytest-xdist deals tests to workers: a model's cells stay together, so that one worker keeps its lease.

xdist's own `--dist loadgroup` rewrites node ids, which pytest 9.2 no longer lets it do: there it silently deals every
test on its own. This scheduler reads the group out of the test's id instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdist.scheduler import LoadScheduling, LoadScopeScheduling

from pytest_hfaccel.plugin.parametrize import read_id


class SchedulingByContent:
    """xdist's own default for a run without model classes, `ModelScheduling` for one with: known after collection.

    Args:
        config: pytest's configuration.
        log: xdist's logger.
        has_models: Called when the first worker has collected: whether it has tests of model classes.
    """

    def __init__(self, config: Any, log: Any, has_models: Callable[[], bool]) -> None:
        self._scheduling: Any = LoadScheduling(config, log)
        self._arguments = (config, log)
        self._has_models = has_models
        self._is_decided = False

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Take in what a worker has collected."""
        if not self._is_decided and self._has_models():
            nodes = self._scheduling.nodes
            self._scheduling = ModelScheduling(*self._arguments)
            for known in nodes:
                self._scheduling.add_node(known)
        self._is_decided = True
        self._scheduling.add_node_collection(node, collection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduling, name)


class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is an optional dependency: Any to mypy
    """Groups by model; any other test is a group of its own."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the group of a test, given its node id."""
        return group_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Take a worker out; when it died, the rest of the cell it died in is not run.

        xdist would hand out the very test the worker died of again, and would lose another worker to it.

        Returns:
            The test the worker died of; `None` when it had none left.
        """
        work: dict[str, dict[str, bool]] = self.assigned_work[node]
        left = [nodeid for unit in work.values() for nodeid, completed in unit.items() if not completed]
        if not left:
            return super().remove_node(node)  # type: ignore[no-any-return]
        died_of = left[0]
        for unit in work.values():
            unit.update({nodeid: True for nodeid in unit if nodeid == died_of or _same_cell(nodeid, died_of)})
        self.assigned_work[node] = {scope: unit for scope, unit in work.items() if not all(unit.values())}
        super().remove_node(node)
        return died_of


def group_of(nodeid: str) -> str:
    """Return the model's slug for a test of a model class, else the node id itself."""
    parameter = _parameter(nodeid)
    return read_id(parameter)[1] if parameter else nodeid


def _same_cell(nodeid: str, other: str) -> bool:
    ours, theirs = _parameter(nodeid), _parameter(other)
    return bool(ours and theirs) and read_id(ours)[0] == read_id(theirs)[0]


def _parameter(nodeid: str) -> str:
    return nodeid.partition("[")[2].rstrip("]")
