from __future__ import annotations

import pytest

from pytest_hfaccel.checks.loading import is_same_device
from pytest_hfaccel.core.spec import Device


@pytest.mark.parametrize(
    ("wanted", "reported", "same"),
    [
        ("cpu", "cpu", True),
        ("cuda:1", "cuda:1", True),
        ("cuda:1", "cuda:0", False),
        ("cuda:0", "cpu", False),
        ("mps", "mps:0", True),
        ("openvino:CPU", "CPU", True),
        ("openvino:GPU", "GPU.0", True),
        ("openvino:GPU", "CPU", False),
        ("openvino:AUTO", "CPU", True),
        ("openvino:HETERO:GPU,CPU", "GPU.0", True),
    ],
)
def test_whether_a_runtime_means_the_wanted_device(wanted: str, reported: str, same: bool) -> None:
    assert is_same_device(Device.parse(wanted), reported) is same
