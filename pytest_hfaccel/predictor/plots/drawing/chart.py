"""Charts of numbers per model and column: bars for few models, heat maps for many. Imported late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_hfaccel.predictor.plots.drawing.entry import Entry
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words, matrix_heading
from pytest_hfaccel.predictor.plots.drawing.page import Heading
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable

FEW = 12
"""Up to so many models are shown as bars, one panel each; more of them as the rows of a heat map."""


@dataclass(frozen=True)
class Side:
    """One of the panels (maps) that stand side by side for each model.

    Attributes:
        title: What differs between them, e.g. `batch 8`.
        label: What is shown, with its unit.
        entry: The number of a model in a column.
    """

    title: str
    label: str
    entry: Callable[[MatrixModel, str], Entry]


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        table: The matrix.
        name: Of its file, without page and suffix.
        words: Its words.
        columns: Names of the bars (of the columns of the map), with their colours.
        sides: Panels per model.
        baseline: Where bars begin and colours change sides: 1 for ratios.
    """

    table: MatrixTable
    name: str
    words: Words
    columns: dict[str, str]
    sides: Sequence[Side]
    baseline: float | None = None

    @property
    def models(self) -> list[MatrixModel]:
        """The models that have a number in it; the others are only named in the caption."""
        return [model for model in self.table.models if any(entry.value for entry in self.entries([model]))]

    def entries(self, models: Sequence[MatrixModel]) -> Iterator[Entry]:
        """All numbers of some models."""
        for model in models:
            for side in self.sides:
                for column in self.columns:
                    yield side.entry(model, column)

    def heading(self, models: Sequence[MatrixModel]) -> Heading:
        """The words of the page with these models."""
        shown = self.models
        left_out = [model for model in self.table.models if model not in shown]
        return matrix_heading(self.table, self.words, self.entries(models), left_out)
