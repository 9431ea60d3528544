"""A prediction matrix, read and checked: what the plots of a matrix are drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.prediction import Source

BASELINE = "cpu"


@dataclass(frozen=True)
class MatrixCell:
    """One prediction.

    Attributes:
        throughput: Samples per second; `None` where it is not known.
        latency: Milliseconds of a batch; likewise.
        memory: MiB at the peak; likewise.
        source: The layer the numbers come from; empty where the matrix does not say.
        memory_source: The same for the memory, where it differs.
        fits: Whether the device's memory suffices; `None` where that is not known.
    """

    throughput: Bounded | None = None
    latency: Bounded | None = None
    memory: Bounded | None = None
    source: str = ""
    memory_source: str = ""
    fits: bool | None = None

    @property
    def runs(self) -> bool:
        """Whether its speed may be shown: a model that does not fit has none, whatever a formula says."""
        return self.fits is not False


UNKNOWN = MatrixCell()


@dataclass(frozen=True)
class MatrixModel:
    """One model of a matrix.

    Attributes:
        name: Its name.
        family: Its family (`category` in the matrix).
        cells: By platform, batch and precision.
    """

    name: str
    family: str
    cells: dict[tuple[str, int, str], MatrixCell]

    def cell(self, platform: str, batch: int, precision: str) -> MatrixCell:
        """The cell, or an empty one where nothing is known."""
        return self.cells.get((platform, batch, precision), UNKNOWN)


@dataclass(frozen=True)
class MatrixTable:
    """A prediction matrix.

    Attributes:
        models: Sorted by family, in it the fastest first.
        platforms: Hardware, in the order of the matrix.
        batches: Batch sizes, ascending.
        precisions: In the order of the matrix.
        device_names: The chip behind a platform, where the matrix says so.
        device_memory: Its memory in MiB, likewise.
        mode: `inference` or `training`.
        timestamp: When the matrix was made, as it says.
    """

    models: list[MatrixModel]
    platforms: list[str]
    batches: list[int]
    precisions: list[str]
    device_names: dict[str, str] = field(default_factory=dict)
    device_memory: dict[str, float] = field(default_factory=dict)
    mode: str = "inference"
    timestamp: str = ""

    @property
    def extreme_batches(self) -> list[int]:
        """The smallest and the largest batch; one when there is only one."""
        return sorted({self.batches[0], self.batches[-1]})

    @property
    def baseline(self) -> str | None:
        """The platform that others are compared with: `cpu`, else the first CPU; `None` where the matrix has none."""
        if BASELINE in self.platforms:
            return BASELINE
        return next((name for name in self.platforms if name.partition(":")[0] == BASELINE), None)

    def cells(self, precision: str, batches: list[int]) -> Iterator[MatrixCell]:
        """All known cells at a precision and some batches."""
        for model in self.models:
            for (_, batch, other), cell in model.cells.items():
                if other == precision and batch in batches:
                    yield cell


def is_measured(source: str) -> bool:
    """Whether numbers of this source were measured on the device, not predicted."""
    return source == Source.MEASURED
