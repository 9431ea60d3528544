"""What is patched of onnxscript: still needed, and without effect on the graphs."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnxscript", reason="onnxscript is an extra of this package")

from pytest_hfaccel.upstream.onnxscript import rules_on_their_operator_only


def graph_with_a_double_transpose(nodes: int) -> Any:
    import onnx_ir

    x = onnx_ir.val("x", onnx_ir.DataType.FLOAT, (2, 3))
    values = [x]
    made = []
    for _ in range(2):
        made.append(onnx_ir.node("Transpose", inputs=[values[-1]], attributes={"perm": [1, 0]}))
        values.append(made[-1].outputs[0])
    for _ in range(nodes):
        made.append(onnx_ir.node("Relu", inputs=[values[-1]]))
        values.append(made[-1].outputs[0])
    graph = onnx_ir.Graph([x], [values[-1]], nodes=made, opset_imports={"": 18}, name="g")
    return onnx_ir.Model(graph, ir_version=10)


def test_rules_are_tried_on_few_nodes_and_rewrite_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxscript.optimizer
    from onnxscript.rewriter._matcher import SimplePatternMatcher

    attempts = []
    match = SimplePatternMatcher.match

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        attempts.append(1)
        return match(self, *args, **options)

    monkeypatch.setattr(SimplePatternMatcher, "match", counted)
    plain, fewer = graph_with_a_double_transpose(20), graph_with_a_double_transpose(20)
    onnxscript.optimizer.optimize_ir(plain)
    needed, attempts[:] = len(attempts), []
    with rules_on_their_operator_only:
        onnxscript.optimizer.optimize_ir(fewer)
    assert [node.op_type for node in fewer.graph] == [node.op_type for node in plain.graph]
    assert "Transpose" not in {node.op_type for node in fewer.graph}, "a rule was applied"
    assert needed > 1000, "onnxscript itself tries every rule on every node; else this patch is no longer needed"
    assert len(attempts) < needed / 5
