"""Hardware preferences: what is understood, and what is refused with a message that helps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.pool import HardwarePreferences


class Named:
    """Prints like torch's devices and dtypes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, HardwarePreferences()),
        ({}, HardwarePreferences()),
        ({"device": None, "precision": None}, HardwarePreferences()),
        ({"device": "AUTO"}, HardwarePreferences()),
        ({"device": " CUDA "}, HardwarePreferences(device="cuda")),
        ({"device": "cuda:1"}, HardwarePreferences(device="cuda:1")),
        ({"device": "openvino:gpu"}, HardwarePreferences(device="openvino:GPU")),
        (
            {"device": Named("cuda:0"), "precision": Named("torch.bfloat16")},
            HardwarePreferences("cuda:0", precision="bf16"),
        ),
        ({"priority_list": ["cuda", "mps", "cpu"]}, HardwarePreferences(priority_list=("cuda", "mps", "cpu"))),
        ({"force_device": "cuda"}, HardwarePreferences(force_device="cuda:0")),
        ({"device": "mps", "force_device": True}, HardwarePreferences("mps", force_device="mps")),
        ({"force_device": False}, HardwarePreferences()),
        ({"precision": "float16"}, HardwarePreferences(precision="fp16")),
        ({"precision": "auto"}, HardwarePreferences()),
        ({"hw_compatibility": {"CUDA": False}}, HardwarePreferences(hw_compatibility={"cuda": False})),
    ],
)
def test_what_is_understood(given: Any, expected: HardwarePreferences) -> None:
    assert HardwarePreferences.parse(given) == expected
    assert HardwarePreferences.parse(expected) is expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devise": "cpu"}, r"there is no 'devise'\. Did you mean 'device'\? Allowed: browser_optimized, description"),
        ({"device": "cudo"}, r"'cudo' is not a device\. Did you mean 'cuda'\? Allowed: auto, cpu, cuda"),
        ({"device": "fake"}, r"'fake' is not a device\. Allowed: auto, cpu"),
        ({"device": "cuda:x"}, r"\['device'\]: 'cuda:x' is not a device: cuda takes an index"),
        ({"priority_list": "cuda"}, r"\['priority_list'\] is 'cuda', not a list of devices"),
        ({"priority_list": ["cpu", "tpu"]}, r"\['priority_list'\]: 'tpu' is not a device"),
        ({"preferred_index": -1}, r"\['preferred_index'\] is -1, not the number of a device"),
        ({"preferred_index": True}, r"\['preferred_index'\] is True"),
        ({"force_device": True}, r"\['force_device'\] is true, but 'device' names none"),
        (
            {"precision": "int8"},
            r"cannot be cast to 'int8'\. Allowed: fp64, fp32, fp16, bf16\.\nA quantized model is made",
        ),
        ({"force_low_memory": 1}, r"\['force_low_memory'\] is 1, not True or False"),
        ({"hw_compatibility": ["cuda"]}, r"\['hw_compatibility'\] is .* not a dictionary"),
        ({"hw_compatibility": {"cuda": "yes"}}, r"\['hw_compatibility\.cuda'\] is 'yes', not True, False"),
        ({"description": SimpleNamespace()}, r"\['description'\] is .*, not a text"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HardwarePreferences.parse(given)


def test_the_json_form_leaves_defaults_out() -> None:
    assert HardwarePreferences().to_json() == {}
    given = {"device": "cuda", "priority_list": ["cpu"], "preferred_index": 1, "description": "a test"}
    assert HardwarePreferences.parse(given).to_json() == given
