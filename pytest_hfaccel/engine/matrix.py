"""Models x devices x dtypes -> ordered cells.

The expansion is a pure function of its arguments. It never asks the machine anything, so that every worker of a
parallel run collects the same cells in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, Cell, Device, ModelSpec, WeightsChoice


def expand_matrix(
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    dtypes: Sequence[str],
    weights_of: Callable[[ModelSpec], WeightsChoice],
) -> list[Cell]:
    """Span the matrix.

    Args:
        specs: The models, in the order in which they are to run.
        devices: The devices; the CPU is put first, because the reference is computed on it.
        dtypes: The dtypes the user asked for; when empty, each model's own list.
        weights_of: The weights a model runs with.

    Returns:
        The cells, a model's cells side by side.

    Raises:
        ConfigError: Two models have the same slug, so that their cells' ids would collide.
    """
    ordered = sorted(devices, key=lambda device: device != CPU)
    slugs: dict[str, str] = {}
    cells = []
    for spec in specs:
        if slugs.setdefault(spec.slug, spec.name) != spec.name:
            raise ConfigError(
                f"{spec.name!r} and {slugs[spec.slug]!r} both get the id {spec.slug!r}; rename one of them."
            )
        weights = weights_of(spec)
        cells += [Cell(spec, device, dtype, weights) for device in ordered for dtype in (dtypes or spec.dtypes)]
    return cells


def class_level(cells: Iterable[Cell]) -> list[Cell]:
    """Return one class-level cell per model among `cells`, in order."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.model.name, Cell(cell.model, CLASS_LEVEL, "fp32", cell.weights))
    return list(found.values())
