"""Numbers and names on plots and in the names of files."""

from __future__ import annotations

import pytest

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots.memory_unit import memory_unit
from pytest_hfaccel.predictor.plots.output import check_suffix
from pytest_hfaccel.predictor.plots.words import LONGEST, compact, file_part, plain, with_interval, with_unit


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.00012345, "1.23e-04"),
        (0.012345, "0.0123"),
        (1, "1"),
        (2.5, "2.5"),
        (12.345, "12.3"),
        (120, "120"),
        (999.4, "999"),
        (999.6, "1,000"),
        (1234, "1,230"),
        (9994, "9,990"),
        (9996, "10k"),
        (12345, "12.3k"),
        (999_600, "1M"),
        (1.5e11, "150G"),
        (3e12, "3T"),
        (-5, "-5"),
    ],
)
def test_numbers_have_three_digits(number: float, text: str) -> None:
    assert compact(number) == text


def test_a_suffix_belongs_to_the_unit() -> None:
    assert with_unit(1.5e11, "FLOP/s") == "150 GFLOP/s"
    assert with_unit(20, "B/s") == "20 B/s"


def test_intervals_are_written_where_there_are_some() -> None:
    assert with_interval(120, 100, 140) == "120 (100\u2013140)"
    assert with_interval(2, None, None, "\u00d7") == "2\u00d7"


def test_names_fit_on_a_line_and_into_a_legend() -> None:
    assert plain("a\nb\tc") == "a b c"
    assert not plain("_hidden").startswith("_")
    assert plain("") == "(no name)"


@pytest.mark.parametrize("name", ["google/vit", "a:b", "../../etc/passwd", "", ".", "\u540d\u524d", "x" * 200, "a\0b"])
def test_parts_of_file_names_are_safe_and_stable(name: str) -> None:
    part = file_part(name)
    assert part == file_part(name)
    assert part
    assert set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not part.startswith(".")
    assert len(part) <= LONGEST + 7


def test_different_names_have_different_files() -> None:
    names = ["a/b", "a:b", "a_b", "a//b", "A/b", "x" * 200, "x" * 201, "", "/"]
    assert len({file_part(name) for name in names}) == len(names)
    assert file_part("fp16") == "fp16"
    assert file_part("peak memory") == "peak_memory"


def test_memory_is_in_gibibytes_from_ten_thousand_mebibytes_on() -> None:
    assert memory_unit([100.0, 9_000.0]).name == "MiB"
    unit = memory_unit([100.0, 20_480.0])
    assert (unit.name, 20_480 * unit.per_mebibyte) == ("GiB", 20)
    assert memory_unit([]).name == "MiB"


def test_suffixes_are_known() -> None:
    assert check_suffix(".PNG") == ".png"
    with pytest.raises(ConfigError, match=r"suffix '\.gif' is not known\. Allowed: \.png, \.svg\."):
        check_suffix(".gif")
