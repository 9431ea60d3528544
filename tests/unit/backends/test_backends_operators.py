"""Where the operators of a model run; `test_described_device.py` has a device that falls back to the CPU."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_operators_of_the_device_and_of_the_models_code_on_the_cpu() -> None:
    import torch

    from pytest_hfaccel.backends.torch.operators import log_operators

    def model(x: torch.Tensor) -> torch.Tensor:
        torch.arange(3) + 1
        return torch.nn.functional.linear(x, x) * 2 + 1

    operators = log_operators(model, {"x": torch.ones(2, 2, device="meta")}, torch.device("meta"))
    assert operators.on_device == 3
    assert set(operators.on_cpu) == {"aten::arange", "aten::add"}
    assert not operators.fallback
    assert operators.details("chip:0") == {
        "nodes": {"chip:0": 3, "cpu": 2},
        "cpu_fallback": {"nodes": 0, "operators": {}},
        "model_on_cpu": {"aten::arange": 1, "aten::add": 1},
    }


def test_products_among_them() -> None:
    import torch

    from pytest_hfaccel.backends.torch.operators import log_operators

    def model(x: torch.Tensor) -> torch.Tensor:
        torch.ones(2, 2) @ torch.ones(2, 2)
        return x + 1

    operators = log_operators(model, {"x": torch.ones(2, device="meta")}, torch.device("meta"))
    assert list(operators.products_on_cpu().values()) == [1]
