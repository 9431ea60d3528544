"""What a model needs to be installed."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from pytest_hfaccel.core.spec import ModelSpec, VersionBound
from pytest_hfaccel.registry import missing_dependencies, unsupported_transformers


def spec(*dependencies: str, low: str | None = None, high: str | None = None) -> ModelSpec:
    return ModelSpec(
        "m",
        "BertModel",
        "feature-extraction",
        dependencies=dependencies,
        min_transformers=VersionBound(low, "why low") if low else None,
        max_transformers=VersionBound(high, "why high") if high else None,
    )


def test_what_is_there_is_not_missing() -> None:
    assert missing_dependencies(spec("packaging", "pytest>=7", "no-such-package; python_version < '3'")) == []


def test_what_is_missing_says_what_is_there_instead() -> None:
    assert missing_dependencies(spec("no-such-package>=2", "pytest>=999")) == [
        "no-such-package>=2 (not installed)",
        f"pytest>=999 ({version('pytest')} is installed)",
    ]


@pytest.mark.parametrize(
    ("installed", "low", "high", "expected"),
    [
        ("5.16.0", None, None, None),
        ("5.16.0", "5.16", "5.16", None),
        ("5.16.0.dev0", "5.16", None, None),
        ("5.15.2", "5.16", None, "needs transformers >= 5.16 (5.15.2 is installed): why low"),
        ("5.17.0", None, "5.16", "needs transformers <= 5.16 (5.17.0 is installed): why high"),
    ],
)
def test_bounds_on_transformers(
    monkeypatch: pytest.MonkeyPatch, installed: str, low: str | None, high: str | None, expected: str | None
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: {"transformers": installed}[name])
    assert unsupported_transformers(spec(low=low, high=high)) == expected
