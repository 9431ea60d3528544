"""A class that needs a package that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.checkpoints.pretrained.packages import missing_package, name_missing_package
from pytest_hfaccel.core.errors import LoadError, PackageMissing
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.registry.auto_classes import match_pairs

SPEC = ModelSpec("fast_vlm/FastVlmModel", "FastVlmModel", "base-model")
NEEDS = ImportError("\nTimmWrapperModel requires the timm library but it was not found in your environment.")


def test_it_is_named_also_where_another_error_wraps_it() -> None:
    wrapped = LoadError("a FastVlmModel cannot be built")
    wrapped.__cause__ = NEEDS
    with (
        pytest.raises(PackageMissing, match="FastVlmModel needs the package timm, which is not installed") as caught,
        name_missing_package(SPEC),
    ):
        raise wrapped
    assert caught.value.status == "unavailable"
    assert caught.value.hint == "Install it with: pip install timm."


def test_any_other_error_stays_what_it_is() -> None:
    with pytest.raises(LoadError), name_missing_package(SPEC):
        raise LoadError("a FastVlmModel cannot be built: TypeError: requires the timm library")
    with pytest.raises(ImportError, match="circular"), name_missing_package(SPEC):
        raise ImportError("circular import")
    assert missing_package(ValueError("requires the timm library")) is None


def test_it_is_named_as_it_is_installed() -> None:
    text = (
        "\npost_process requires the OpenCV library but it was not found in your environment. Install it with:\n"
        "```\npip install opencv-python\n```\nPlease note that you may need to restart your runtime."
    )
    assert missing_package(ImportError(text)) == "opencv-python"
    pip = NEEDS.args[0] + " You can install it with pip:\n`pip install timm`. Please note that you may"
    assert missing_package(ImportError(pip)) == "timm"


def test_an_error_that_names_it_is_not_wrapped_again() -> None:
    with pytest.raises(PackageMissing) as first, name_missing_package(SPEC):
        raise NEEDS
    with pytest.raises(PackageMissing) as second, name_missing_package(SPEC):
        raise first.value
    assert second.value is first.value


@pytest.mark.slow
def test_it_is_named_by_a_checkpoint_that_was_built_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def needs(*_arguments: Any, **_options: Any) -> None:
        raise NEEDS

    spec = match_pairs("gpt2/GPT2LMHeadModel")[0]
    checkpoint = CheckpointStore(tmp_path).prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "from_pretrained", needs)
    with pytest.raises(PackageMissing, match="GPT2LMHeadModel needs the package timm, which is not installed"):
        checkpoint.torch_model("fp32")
