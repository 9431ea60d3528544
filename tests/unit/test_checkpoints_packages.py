"""A class that needs a package that is not there."""

from __future__ import annotations

import pytest

from pytest_hfaccel.checkpoints.packages import missing_package, packages_named
from pytest_hfaccel.errors import LoadError, PackageMissing
from pytest_hfaccel.spec import ModelSpec

SPEC = ModelSpec("fast_vlm/FastVlmModel", "FastVlmModel", "base-model")
NEEDS = ImportError("\nTimmWrapperModel requires the timm library but it was not found in your environment.")


def test_it_is_named_also_where_another_error_wraps_it() -> None:
    wrapped = LoadError("a FastVlmModel cannot be built")
    wrapped.__cause__ = NEEDS
    with (
        pytest.raises(PackageMissing, match="FastVlmModel needs the package timm, which is not installed") as caught,
        packages_named(SPEC),
    ):
        raise wrapped
    assert caught.value.status == "unavailable"
    assert caught.value.hint == "Install it with: pip install timm."


def test_any_other_error_stays_what_it_is() -> None:
    with pytest.raises(LoadError), packages_named(SPEC):
        raise LoadError("a FastVlmModel cannot be built: TypeError: requires the timm library")
    with pytest.raises(ImportError, match="circular"), packages_named(SPEC):
        raise ImportError("circular import")
    assert missing_package(ValueError("requires the timm library")) is None
