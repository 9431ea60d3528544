"""The progress of a run on a cluster: a bar and what each node does, or a line per cell where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.events import CellFinished, Event
from pytest_hfaccel.core.results import CellKey


class Progress:
    """Shows the progress on standard error; a consumer of the run's events.

    Args:
        total: Number of cells.
        nodes: What the nodes have, in words.

    Raises:
        ConfigError: rich is not installed.
    """

    def __init__(self, total: int, nodes: str) -> None:
        try:
            from rich import progress
            from rich.console import Console
        except ImportError as error:
            raise ConfigError(
                "the package rich is not installed.", hint="Install it with: pip install 'pytest-hfaccel[ray]'"
            ) from error
        self.node_of: Mapping[CellKey, str] = {}
        """The name of the node that ran a cell."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._total, self._nodes = total, nodes
        self._done = self._bad = 0
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=total)
        self._lines: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._console.print(f"{self._total} cells; {self._nodes}", markup=False)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, node: str, text: str) -> None:
        """Show what a node does; nothing when it is idle."""
        if node not in self._lines:
            self._lines[node] = self._bar.add_task(node, total=None)
        self._bar.update(self._lines[node], description=f"{node}: {text or 'idle'}")

    def __call__(self, event: Event) -> None:
        """Count a finished cell."""
        if not isinstance(event, CellFinished):
            return
        result = event.result
        self._done += 1
        self._bad += result.status.is_bad
        failed = f", {self._bad} failed" if self._bad else ""
        self._bar.update(self._task, completed=self._done, description=f"cells{failed}")
        if not self._console.is_terminal or result.status.is_bad:
            where = self.node_of.get(result.key, "")
            width = len(str(self._total))
            line = f"[{self._done:>{width}}/{self._total}] {result.cell} {result.status}"
            self._console.print(line + (f" on {where}" if where else ""), markup=False)
