"""How much memory each model needs on each platform, by batch, beside what the device has. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pytest_hfaccel.predictor.plots.drawing.chart import FEW, Chart, Side
from pytest_hfaccel.predictor.plots.drawing.entry import Entry
from pytest_hfaccel.predictor.plots.drawing.heat_chart import draw_heat_chart
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words
from pytest_hfaccel.predictor.plots.drawing.memory_bars import draw_memory_bars
from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.style import hardware_colours
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.memory_unit import MemoryUnit, memory_unit
from pytest_hfaccel.predictor.plots.words import compact, file_part, plain

TITLE = "Peak memory of each model on each platform"


def memory(table: MatrixTable) -> Iterator[tuple[str, Page]]:
    """Draw one chart per precision: bars by batch, or for many models heat maps of the extreme batches."""
    for precision in table.precisions:
        values = [cell.memory.value for cell in table.cells(precision, table.batches) if cell.memory]
        unit, name = memory_unit(values), f"memory_{file_part(precision)}"
        by_batch = _chart(table, precision, unit, table.batches)
        if len(by_batch.models) > FEW:
            yield from draw_heat_chart(_chart(table, precision, unit, table.extreme_batches))
        elif values:
            yield name, draw_memory_bars(by_batch, unit)


def _chart(table: MatrixTable, precision: str, unit: MemoryUnit, batches: list[int]) -> Chart:
    def entry(model: MatrixModel, platform: str, batch: int) -> Entry:
        cell, limit = model.cell(platform, batch, precision), table.device_memory.get(platform)
        value = cell.memory.times(unit.per_mebibyte) if cell.memory else None
        fits = cell.runs and not (cell.fits is None and cell.memory and limit and cell.memory.value > limit)
        return Entry(value, cell.memory_source, fits)

    label = f"peak memory ({unit.name})"
    sides = [Side(f"batch {batch}", label, partial(entry, batch=batch)) for batch in batches]
    words = Words(TITLE, plain(precision), _how(table, unit))
    return Chart(table, f"memory_{file_part(precision)}", words, hardware_colours(table.platforms), sides)


def _how(table: MatrixTable, unit: MemoryUnit) -> str:
    sizes = {name: size * unit.per_mebibyte for name, size in table.device_memory.items() if name in table.platforms}
    if not sizes:
        return "Red: does not fit the device."
    known = ", ".join(f"{plain(name)} {compact(size)} {unit.name}" for name, size in sizes.items())
    return f"Red: does not fit the device. Devices have: {known}."
