"""What we patch of ExecuTorch: a program is the same to the byte without traces that have nothing to find out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_hfaccel.core.presence import installed_version
from pytest_hfaccel.upstream.executorch import decompose_once, quiet, retrace_changed_only

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed_version("executorch") is None, reason="executorch is an extra of this package"),
]


class Mixed(torch.nn.Module):  # type: ignore[misc]
    """What XNNPACK's passes change (norm, activation, convolution of one dimension), and a sum that it leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(4, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm1d(8)
        self.product = torch.nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.convolution(inputs))).transpose(1, 2)
        return torch.nn.functional.gelu(self.product(torch.cat([hidden, hidden + 1], dim=1))).cumsum(1)


class ChangesInput(torch.nn.Module):  # type: ignore[misc]
    """An operator that changes its argument."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.softmax(inputs.clone().transpose(1, 2).add_(1), dim=-1)


def lowered(module: type[torch.nn.Module] = Mixed) -> bytes:
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        torch.manual_seed(0)
        model, batch = module().eval().requires_grad_(False), torch.export.Dim("batch", max=8)
        captured = torch.export.export(model, (torch.ones(2, 4, 6),), dynamic_shapes=({0: batch},))
        program = to_edge_transform_and_lower(captured, partitioner=[XnnpackPartitioner()]).to_executorch()
        return bytes(program.buffer)


def test_a_program_is_the_same_without_idle_traces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with quiet():
        from executorch.exir import pass_base

    traces: list[str] = []
    right = pass_base._ExportPassBase.call

    def counted(self: Any, graph_module: Any) -> Any:
        traces.append(type(self).__name__)
        return right(self, graph_module)

    lowered()  # makes the patterns that ExecuTorch keeps for the process
    monkeypatch.setattr(pass_base._ExportPassBase, "call", counted)
    expected = lowered()
    assert "PReLUReshapePass" in traces, "ExecuTorch leaves it out by itself: retrace_changed_only is no longer needed"
    traces.clear()
    with retrace_changed_only:
        found = lowered()
    assert pass_base._ExportPassBase.call is counted
    assert found == expected
    assert "PReLUReshapePass" not in traces
    assert {"Conv1dUnsqueezePass", "ConstPropPass"} <= set(traces), "a pass that changes nodes was left out"


@pytest.mark.parametrize(("module", "fewer", "usual"), [(Mixed, 1, 3), (ChangesInput, 2, 3)])
def test_a_program_is_the_same_decomposed_once(
    module: type[torch.nn.Module], fewer: int, usual: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.export import ExportedProgram

    traces: list[int] = []
    right = ExportedProgram.run_decompositions

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        traces.append(len(self.graph.nodes))
        return right(self, *args, **kwargs)

    lowered(module)  # makes the patterns that ExecuTorch keeps for the process
    monkeypatch.setattr(ExportedProgram, "run_decompositions", counted)
    expected = lowered(module)
    assert len(traces) == usual, "ExecuTorch decomposes programs in another way: look whether decompose_once is needed"
    traces.clear()
    with decompose_once:
        found = lowered(module)
    assert ExportedProgram.run_decompositions is counted
    assert found == expected
    assert len(traces) == fewer
