"""Check `compile`: a compiled model gives what the model gives. Only with `--hf-compile`."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.tolerances import tolerance_of
from pytest_hfaccel.core.results import CheckOutcome, Stage

NAME = "compile"
OPTION = "compile"


def compilation(context: CheckContext) -> CheckOutcome:
    """With torch.compile, by its default backend and by OpenVINO's where present, the outputs are those without."""
    from pytest_hfaccel.checks.compiling import NotCompiled, compilers, run_compiled

    found, left_out = compilers(context.cell.device, context.cell.dtype)
    measures: dict[str, Any] = {"left_out": left_out}
    if not found:
        return skipped(NAME, "; ".join(f"{name}: {why}" for name, why in left_out.items()), **measures)
    expected = context.outputs
    for compiler in found:
        try:
            got, facts = run_compiled(context.loaded.pipeline_model(), context.sample.forward, compiler)
        except NotCompiled as error:
            return failed(NAME, f"{compiler.name}: {error}", stage=Stage.COMPILE, **measures)
        comparison = compare(
            got, expected, tolerance_of(context.cell), lambda: context.reference.error_of(context.cell.dtype)
        )
        measures[compiler.name] = {"rel_l2": comparison.measures().get("rel_l2"), **facts}
        if not comparison.ok:
            return failed(NAME, f"{compiler.name} against eager: {comparison.text()}", **measures)
    return passed(NAME, **measures)
