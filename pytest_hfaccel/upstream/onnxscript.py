"""onnxscript, seen in 0.7.2."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from pytest_hfaccel.upstream import RefCountedContext


def _try_rules_on_their_operator_only(stack: ExitStack) -> None:
    from onnxscript.rewriter._matcher import SimplePatternMatcher
    from onnxscript.rewriter._rewrite_rule import RewriteRule

    try_rewrite = RewriteRule.try_rewrite
    operators: dict[RewriteRule, tuple[str, str] | None] = {}

    def operator_of(rule: RewriteRule) -> tuple[str, str] | None:
        """Return domain and operator of the only nodes a rule can match; `None` where it may match others."""
        if not isinstance(rule._matcher, SimplePatternMatcher):
            return None
        identifier = rule._target_pattern.output_nodes[0].op_identifier()
        return None if identifier is None else identifier[:2]

    def try_on_its_operator(self: RewriteRule, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if self not in operators:
            operators[self] = operator_of(self)
        operator = operators[self]
        if operator is not None and (node.op_type != operator[1] or node.domain != operator[0]):
            return None
        return try_rewrite(self, model, graph, node, **options)

    stack.enter_context(patch.object(RewriteRule, "try_rewrite", try_on_its_operator))


rules_on_their_operator_only = RefCountedContext(_try_rules_on_their_operator_only)
"""Let a rule of the optimizer look only at nodes of the operator that its pattern ends with, for a `with` block.

The optimizer tries each of some hundred rules on every node, and each attempt prepares the match before it compares the
operator: a fifth of a conversion to ONNX. The graphs are the same.
"""
