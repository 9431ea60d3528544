"""Plots without matplotlib, into places that cannot be written, and with names that no font has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.plots import plot_accuracy, plot_matrix, plot_measurements, plot_roofline
from tests.unit.plots.samples import (
    accuracy_rows,
    needs_matplotlib,
    roofline_points,
    sample_matrix,
    sample_measurements,
)

Plot = Callable[..., list[Path]]

PLOTS: dict[str, tuple[Plot, tuple[Any, ...]]] = {
    "matrix": (plot_matrix, (sample_matrix(1, ("cpu",), (1,), ("fp32",)),)),
    "measurements": (plot_measurements, (sample_measurements(1)[:1],)),
    "accuracy": (plot_accuracy, (accuracy_rows(2), "latency", "ms")),
    "roofline": (plot_roofline, (roofline_points(2), 1e11, 1e10, "Some CPU")),
}


@pytest.fixture(params=PLOTS)
def plot(request: pytest.FixtureRequest) -> Plot:
    """One of the four functions, with its input; takes the directory and options."""
    function, arguments = PLOTS[request.param]
    return lambda directory, **options: function(*arguments, directory, **options)


@pytest.mark.parametrize("package", ["matplotlib", "seaborn"])
def test_a_missing_package_is_named_with_its_remedy(
    plot: Plot, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "seaborn":
        needs_matplotlib()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"{package} cannot be imported[^\0]*pip install 'pytest-hfaccel\[predict\]'"
    ):
        plot(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_unknown_suffix(plot: Plot, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\.pdf' is not known\. Allowed: \.png, \.svg\."):
        plot(tmp_path, suffix=".pdf")


def test_svg(plot: Plot, tmp_path: Path) -> None:
    needs_matplotlib()
    files = plot(tmp_path, suffix=".svg")
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert file.suffix == ".svg"
        assert text.startswith("<?xml")
        assert "<dc:date>" not in text


def test_a_directory_that_cannot_be_made(plot: Plot, tmp_path: Path) -> None:
    needs_matplotlib()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/plots: plots cannot be written there"):
        plot(tmp_path / "file" / "plots")


def test_a_file_that_cannot_be_replaced(tmp_path: Path) -> None:
    needs_matplotlib()
    (tmp_path / "memory_fp32.png").mkdir()
    with pytest.raises(ConfigError, match=r"memory_fp32\.png: the plot cannot be written"):
        plot_matrix(sample_matrix(1, ("cpu",), (1,), ("fp32",)), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_letters_that_the_font_lacks_are_no_failure(tmp_path: Path) -> None:
    needs_matplotlib()
    assert plot_roofline([{**roofline_points(1)[0], "model": "\u540d\u524d"}], 1e11, 1e10, "\u540d", tmp_path)
