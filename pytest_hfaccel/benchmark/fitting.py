"""Whether a model fits into main memory: a process that takes more may have the system end any process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import format_bytes
from pytest_hfaccel.core.spec import Weights

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell

_BYTES_OF_FP32 = 4
_COPIES = 1.3
"""Times the weights that building or loading a checkpoint in fp32 takes at its peak, with room for activations."""
_COPIES_CONVERTING = 4.0
"""The same for a converter: torch's weights, the traced program, the converted one and the compiled one."""


def too_large(cell: Cell, available_bytes: int | None = None) -> str:
    """Return why a cell is not tried, or an empty text; nothing is known of models without a number of parameters.

    Args:
        cell: The cell; tiny weights always fit.
        available_bytes: Main memory there is; what this process can take when not given.
    """
    parameters = cell.model.parameters
    if cell.weights.kind == Weights.TINY or not parameters:
        return ""
    if available_bytes is None:
        from pytest_hfaccel.hardware.cpu_facts import read_cpu

        available_bytes = read_cpu().available_bytes
    copies = _COPIES_CONVERTING if cell.device.traits.exported else _COPIES
    need = int(copies * _BYTES_OF_FP32 * parameters)
    if need <= available_bytes:
        return ""
    return f"it takes about {format_bytes(need)} of main memory, {format_bytes(available_bytes)} are free"
