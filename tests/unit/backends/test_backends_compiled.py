"""Devices with a compiler: what is compiled, what is not, and how that is told.

torch's own backends `eager` and `aot_eager` run graphs as they are, so that these tests need no C++ compiler; inductor
and OpenVINO run through `test_backends_conformance.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.backends.torch.compiled import CompiledModel
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from tests.unit.backends.backend_sources import MadeUpSource, make_cell

pytestmark = pytest.mark.slow


class Layers(torch.nn.Module):  # type: ignore[misc]
    """Two products of matrices; the second one is ; torch does not look into those that `hides` names."""

    dtype = torch.float32

    def __init__(self, hides: str = "") -> None:
        super().__init__()
        self.config = type("Config", (), {"_attn_implementation": "eager"})()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        for layer in [layer for name, layer in self.named_children() if name in hides.split()]:
            layer.forward = torch.compiler.disable(layer.forward, reason="planted")

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.second(self.first(x).relu()) + 1}


def load(model: torch.nn.Module, folder: Path, compiler: str = "aot_eager") -> Any:
    source: Any = MadeUpSource(model.eval(), {"x": torch.ones(2, 4)}, folder)
    eager: Any = Backends().for_kind("cpu").load(make_cell(source.spec), source)
    return CompiledModel(eager, compiler, source.inputs)


def test_a_compiled_model_says_what_was_compiled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Layers()
    expected = model(torch.ones(2, 4))["out"]
    loaded = load(model, tmp_path)
    assert torch.equal(loaded.forward({"x": torch.ones(2, 4)})["out"], expected)
    assert loaded.placement.actual_devices == ("cpu+aot_eager",)
    assert loaded.placement.details["compile"] == {
        "backend": "aot_eager",
        "graphs": 1,
        "compiling_runs": 1,
        "breaks": 0,
        "break_reasons": [],
        "products": 2,
        "products_inside": 2,
    }
    assert loaded.timings["compile"] > 0
    loaded.forward({"x": torch.ones(5, 4)})
    assert loaded.placement.details["compile"]["compiling_runs"] == 2
    loaded.close()
    loaded.close()
    with pytest.raises(Exception, match="closed"):
        loaded.forward({"x": torch.ones(2, 4)})


def test_a_product_outside_the_graphs_is_no_compiled_one(tmp_path: Path) -> None:
    loaded = load(Layers(hides="second"), tmp_path)
    placement = loaded.placement
    assert placement.actual_devices == ("cpu", "cpu+aot_eager")
    assert "1 of 2 products of matrices ran outside the compiled graphs" in placement.details["why_elsewhere"]
    assert "torch.compiler.disable" in placement.details["why_elsewhere"]
    assert placement.details["compile"]["breaks"] == 1
    loaded.close()


def test_what_quietly_compiles_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(
        LoadError, match=r"none of the 2 products of matrices is in a compiled graph.*disable"
    ) as caught:
        load(Layers(hides="first second"), tmp_path)
    assert caught.value.stage == "compile"
    with torch.compiler.set_stance("force_eager"), pytest.raises(LoadError, match="made no graph") as caught:
        load(Layers(), tmp_path)
    assert caught.value.stage == "compile"


@pytest.fixture
def fails() -> Iterator[list[str]]:
    """The backend `sometimes` of torch.compile, which refuses graphs while there is a reason in the list."""
    from torch._dynamo.backends.registry import _BACKENDS, _COMPILER_FNS, register_backend

    reasons: list[str] = []

    def sometimes(graph: Any, _inputs: Any) -> Any:
        if reasons:
            raise RuntimeError(reasons[0])
        return graph.forward

    register_backend(sometimes, name="sometimes")
    yield reasons
    for registry in (_BACKENDS, _COMPILER_FNS):
        registry.pop("sometimes", None)


def test_a_failure_has_its_stage_at_once_and_later(fails: list[str], tmp_path: Path) -> None:
    loaded = load(Layers(), tmp_path, "sometimes")
    fails.append("no kernel for this")
    with pytest.raises(LoadError, match="no kernel for this") as caught:
        loaded.forward({"x": torch.ones(5, 4)})
    assert caught.value.stage == "compile"
    loaded.close()
    with pytest.raises(LoadError, match=r"(?s)sometimes: .*no kernel for this") as caught:
        load(Layers(), tmp_path, "sometimes")
    assert caught.value.stage == "compile"
    assert "TORCHDYNAMO_VERBOSE" not in str(caught.value)


def test_the_limit_of_recompiling_is_no_way_out(tmp_path: Path) -> None:
    loaded = load(Layers(), tmp_path, "eager")
    inputs = {"x": torch.ones(3, 4)}
    with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(LoadError, match="recompile") as caught:
        loaded.forward(inputs)
    assert caught.value.stage == "compile"
    loaded.close()


@pytest.mark.parametrize(
    ("device", "dtype", "why"),
    [
        ("cpu+inductor", "int8", "8-bit weights are not compiled"),
        ("cpu+openvino", "bf16", "fp32 only"),
        ("cuda:99+inductor", "fp32", "cuda:99"),
    ],
)
def test_what_cannot_be_compiled_is_unavailable(device: str, dtype: str, why: str, tmp_path: Path) -> None:
    source: Any = MadeUpSource(Layers(), {"x": torch.ones(2, 4)}, tmp_path)
    with pytest.raises(BackendUnavailable, match=why):
        Backends().for_kind("cuda+inductor").load(make_cell(source.spec, device, dtype), source)
