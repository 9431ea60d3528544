"""Weight-only int8: on OpenVINO by NNCF, on torch devices by torchao, and without either a clear word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable
from tests.unit.backends.backend_sources import CountingSource, MadeUpSource, make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow

PACKAGES = {"cpu": "torchao", "openvino:CPU": "nncf"}


def load(source: Any, device: str, dtype: str = "int8") -> Any:
    return Backends().for_kind(device.partition(":")[0]).load(make_cell(source.spec, device, dtype), source)


def rel_l2(found: Any, expected: Any) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> CountingSource:
    return CountingSource(tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation"))


@pytest.fixture(scope="module", params=PACKAGES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param != "cpu":
        pytest.importorskip("openvino", reason="openvino is an extra of this package")
    package = PACKAGES[request.param]
    from importlib.util import find_spec

    if find_spec(package) is None:
        pytest.skip(f"{package} is an extra of this package")
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(gpt2: CountingSource, device: str) -> Any:
    return load(gpt2, device)


@pytest.fixture(scope="module")
def reference(gpt2: CountingSource) -> Any:
    return load(gpt2, "cpu", "fp64")


def test_the_weights_of_products_really_have_8_bits(loaded: Any, gpt2: CountingSource, device: str) -> None:
    placement = loaded.placement
    assert placement.effective_dtype == "int8"
    model = gpt2.torch_model("fp32")
    linear = sum(layer.weight.numel() for layer in model.modules() if type(layer).__name__ in ("Conv1D", "Linear"))
    assert placement.details["product_weights"] == {"u8" if device != "cpu" else "i8": linear}
    assert loaded.nbytes < load(gpt2, device, "fp32").nbytes


def test_outputs_are_rounded_but_near(loaded: Any, reference: Any, gpt2: CountingSource) -> None:
    inputs = gpt2.sample().forward
    distance = rel_l2(loaded.forward(inputs)["logits"], reference.forward(inputs)["logits"])
    assert 1e-4 < distance < 0.1


def test_greedy_tokens_come_with_and_without_cache(loaded: Any, gpt2: CountingSource) -> None:
    ways = [loaded.generate(gpt2.sample().generate, max_new_tokens=4, use_cache=cache) for cache in (True, False)]
    assert ways[0].shape == ways[1].shape == (2, 4)


@pytest.mark.parametrize("parameter", ["transformer.ln_f.weight", "transformer.h.1.mlp.c_fc.weight"])
def test_a_wrong_weight_is_wrong_before_it_is_rounded(
    loaded: Any, reference: Any, gpt2: CountingSource, parameter: str
) -> None:
    change = WeightChange(parameter, 7, 8.0)
    inputs = gpt2.sample().forward
    right = loaded.forward(inputs)["logits"]
    with reference.perturbed(change) as wrong:
        expected = wrong.forward(inputs)["logits"]
    with loaded.perturbed(change) as wrong:
        found = wrong.forward(inputs)["logits"]
    moved = rel_l2(expected, reference.forward(inputs)["logits"])
    assert rel_l2(found, right) > 0.3 * moved
    assert bool((loaded.forward(inputs)["logits"] == right).all())


def test_activations_are_not_rounded(loaded: Any, device: str) -> None:
    details = loaded.placement.details
    if device == "cpu":
        assert set(details["parameter_dtypes"]) == {"fp32"}
    else:
        assert details["dynamic_quantization_group_size"] == 0
        assert "float32" in details["arithmetic"]


def test_compressed_weights_are_kept_beside_the_conversion(gpt2: CountingSource) -> None:
    pytest.importorskip("nncf", reason="nncf is an extra of this package")
    load(gpt2, "openvino:CPU", "fp32")
    load(gpt2, "openvino:CPU")
    loads = gpt2.torch_loads
    again = load(gpt2, "openvino:CPU")
    assert again.timings["convert"] == 0
    assert again.placement.details["convert_cached"] is True
    assert gpt2.torch_loads == loads
    full = load(gpt2, "openvino:CPU", "fp32").placement
    assert full.effective_dtype == "fp32"
    assert "u8" not in str(full.details.get("product_weights"))


@pytest.mark.parametrize("device", PACKAGES)
def test_without_the_package_it_names_it(device: str, gpt2: CountingSource, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    right = importlib.util.find_spec
    for module in ("openvino.weights", "torch.int8"):
        monkeypatch.setattr(
            f"pytest_hfaccel.backends.{module}.find_spec",
            lambda name, *rest: None if name in PACKAGES.values() else right(name, *rest),
        )
    with pytest.raises(BackendUnavailable, match=f"(?i)int8 needs {PACKAGES[device]}, which rounds") as caught:
        load(gpt2, device)
    assert "pip install 'pytest-hfaccel[" in str(caught.value)


def test_a_product_that_torchao_does_not_round_is_not_called_int8(gpt2: CountingSource) -> None:
    pytest.importorskip("torchao", reason="torchao is an extra of this package")
    import torch

    class Bare(torch.nn.Module):  # type: ignore[misc]
        """Multiplies with a parameter of its own, which is no linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)
            self.weight = torch.nn.Parameter(torch.eye(4))
            self.config = gpt2.torch_model("fp32").config

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.layer(x) @ self.weight}

    source = MadeUpSource(Bare().requires_grad_(False), {"x": torch.ones(2, 4)}, Path())
    with pytest.raises(BackendUnavailable, match=r"are mixed: \{'i8': 16, 'float32': 16\}"):
        load(source, "cpu")
