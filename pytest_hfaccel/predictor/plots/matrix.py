"""Plots of a prediction matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.predictor.plots.matrix_reading import read_matrix
from pytest_hfaccel.predictor.plots.output import check_suffix, prepare_directory, require_plotting


def plot_matrix(matrix: Mapping[str, Any], output_dir: str | Path, *, suffix: str = ".png") -> list[Path]:
    """Draw a prediction matrix: five kinds of plots, each on as many pages as it takes.

    | file | shows | is left out |
    |---|---|---|
    | `hardware_comparison_<precision>` | throughput per platform, smallest and largest batch | |
    | `batch_scaling_<precision>` | throughput and latency by batch | with one batch size |
    | `efficiency_<precision>` | throughput relative to the CPU | without a CPU |
    | `memory_<precision>` | peak memory by platform and batch, and the device's | |
    | `precision_impact_batch<n>` | throughput and memory relative to fp32 | with one precision |

    Up to 12 models have a panel each; more become the rows of heat maps, grouped by family. A plot that would show no
    number is left out, too.

    Args:
        matrix: In the format of the predictor's guide. Throughput is in samples/s, latency in ms, memory in MiB. Cells
            may add `latency_low`, `latency_high`, `memory_low`, `memory_high`, `source`, `memory_source` and `fits`, be
            missing, or be `None`; `matrix["devices"]` may give `{"cuda": {"name": ..., "memory_mb": ...}}`.
        output_dir: Where to write; it is made.
        suffix: `.png` or `.svg`.

    Returns:
        The files, in the order of the table.

    Raises:
        ConfigError: The matrix has mistakes (all are told) or no number; the suffix is unknown; the directory cannot be
            written; matplotlib or seaborn is missing.
    """
    suffix, table = check_suffix(suffix), read_matrix(matrix)
    require_plotting()
    from pytest_hfaccel.predictor.plots.drawing.batch_scaling import batch_scaling
    from pytest_hfaccel.predictor.plots.drawing.efficiency import efficiency
    from pytest_hfaccel.predictor.plots.drawing.hardware_comparison import hardware_comparison
    from pytest_hfaccel.predictor.plots.drawing.memory import memory
    from pytest_hfaccel.predictor.plots.drawing.precision_impact import precision_impact
    from pytest_hfaccel.predictor.plots.drawing.writing import write_pages

    kinds = (hardware_comparison, batch_scaling, efficiency, memory, precision_impact)
    return write_pages((page for kind in kinds for page in kind(table)), prepare_directory(output_dir), suffix)
