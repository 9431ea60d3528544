"""The check `compile`: what a compiler of torch gives is what the model gives, or it says at which stage it failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pytest_hfaccel.checks import implementations
from pytest_hfaccel.checks.implementations import NotCompiled, compilers, run_compiled
from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.core.spec import CPU, Device
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A backend of torch.compile that runs graphs as they are, or does what a test puts in the list."""
    from torch._dynamo.backends.registry import _BACKENDS, _COMPILER_FNS, register_backend

    behaviour: list[Any] = []

    def tried(graph: Any, _inputs: Any) -> Any:
        return behaviour[0](graph) if behaviour else graph.forward

    register_backend(tried, name="tried")
    monkeypatch.setattr(implementations, "compilers", lambda *_: ({"tried": {}}, {}))
    yield behaviour
    for registry in (_BACKENDS, _COMPILER_FNS):
        registry.pop("tried", None)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("fixture", ["bert", "gpt2"])
def test_a_compiled_model_agrees(request: pytest.FixtureRequest, fixture: str) -> None:
    context = TinyContext(request.getfixturevalue(fixture))
    before = {name: tensor.clone() for name, tensor in context.loaded.pipeline_model().state_dict().items()}
    outcome = run("compile", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["tried"]["graphs"] >= 1
    after = context.loaded.pipeline_model().state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_compiler_that_computes_something_else_fails(gpt2: TinySource, backend: list[Any]) -> None:
    backend.append(lambda graph: lambda *args: [out * 1.01 for out in graph.forward(*args)])
    outcome = run("compile", TinyContext(gpt2))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("tried against eager: logits: rel-L2 0.01")


def test_a_compiler_that_fails_says_so_at_its_stage(gpt2: TinySource, backend: list[Any]) -> None:
    def refuse(_graph: Any) -> Any:
        raise RuntimeError("no kernel for this")

    backend.append(refuse)
    outcome = run("compile", TinyContext(gpt2))
    assert outcome.status == Status.FAILED
    assert outcome.stage == Stage.COMPILE
    assert "no kernel for this" in (outcome.reason or "")


@pytest.mark.usefixtures("backend")
def test_a_model_that_is_not_compiled_at_all_fails(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    model = context.loaded.pipeline_model()
    model.forward = torch.compiler.disable(model.forward)
    with pytest.raises(NotCompiled, match="no graph"):
        run_compiled(model, context.sample.forward, "tried", {})


def test_what_openvino_gives_back_to_torch_is_a_failure() -> None:
    pytest.importorskip("openvino", reason="openvino is an extra of this package")

    class Empty(torch.nn.Module):  # type: ignore[misc]
        """Joins an empty vector to a matrix, as an empty cache does; OpenVINO 2026.4 refuses that."""

        dtype = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": torch.cat([torch.tensor([]), x * self.scale], dim=-2)}

    with pytest.raises(NotCompiled, match=r"(?s)OpenVINO ran 0 graphs.*cat"):
        run_compiled(Empty(), {"x": torch.ones(2, 3)}, "openvino", compilers(CPU, "fp32")[0]["openvino"])


def test_who_compiles_where() -> None:
    found, left_out = compilers(CPU, "fp16")
    assert "openvino" not in found
    assert left_out["openvino"]
    assert "openvino" in compilers(Device.parse("cuda:0"), "fp32")[1]


def test_without_a_compiler_inductor_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none() -> str:
        raise cpp_builder.exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert "C++ compiler" in compilers(CPU, "fp32")[1].get("inductor", "")
