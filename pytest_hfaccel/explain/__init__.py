"""Where a model on a device of torch leaves the reference: the first module, and in it the first operator.

| module | what it does |
|---|---|
| `modules.py` | runs the model beside the reference, and each module alone with the reference's inputs |
| `operators.py` | records the operators of one module on both sides, and finds the first that differs |
| `torch_values.py` | records all values that torch computes, and finds a value of a graph among them |
| `graphs.py` | finds the first wrong node of a converted graph, whose values are made its outputs |
| `onnx_graphs.py`, `openvino_graphs.py` | the graphs of these runtimes |
| `parts.py` | finds the smallest part of a graph that is wrong alone |
| `generation/` | finds the first generated token that differs; where the class's `generate` leaves its `forward` |
| `leaks.py` | finds the lines whose allocations stay after a run |
| `cause.py` | whose doing a failure is: experiments, and the rules by which they decide |
| `experiments.py`, `variants.py` | make the experiments; run a converted model in other ways |
| `upstream_issue.py` | writes a report for the project at fault |
| `reproduction.py` | writes a script that shows the error with torch or the runtime alone, and runs it |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.explain.modules import ModuleError
    from pytest_hfaccel.explain.operators import OperatorError

_SHOWN_MODULES = 8


@dataclass(frozen=True)
class Explanation:
    """Where a model's error comes from. All errors are relative L2 norms.

    Attributes:
        error: Of the model's outputs.
        modules: All modules that ran, in the order in which they returned.
        guilty: The first module that adds an error and has no part that does; `None` where none does. Where the outputs
            have NaN or infinity that the reference has not, the module that makes the first.
        operator: The first operator in it that differs; `None` where none was found.
        dtype: The dtype of the model.
        reference_nonfinite: Where the reference has NaN or infinity and the device has numbers: the module and the
            operator of the reference that make the first. Nothing can be said of the device then.
    """

    error: float
    modules: list[ModuleError]
    guilty: ModuleError | None
    operator: OperatorError | None
    dtype: str
    reference_nonfinite: tuple[str, OperatorError] | None = None

    def lines(self) -> Iterator[str]:
        """Yield the answer as lines of text."""
        if self.reference_nonfinite is not None:
            module, operator = self.reference_nonfinite
            yield "The fp64 reference has NaN or infinity where the device has numbers: it says nothing of the device."
            yield f"First made by the reference's {operator.operator} ({operator.dtype}) in {module or 'forward'}."
            return
        if self.guilty is None:
            yield f"No module adds more than {self.dtype} must cost. The outputs are off by {self.error:.1e}."
            return
        place = self.guilty.name or "the model's own forward"
        own = self.guilty.own_error
        off = (
            ""
            if own is None
            else f" is off by {own:.1e} given the reference's inputs; {self.guilty.budget:.1e} are allowed"
        )
        yield (
            f"First divergence: {place} ({self.guilty.kind}){off}. Its inputs are off by {self.guilty.input_error:.1e}."
        )
        if self.operator is not None:
            shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.operator.shapes)
            yield f"Operator: {self.operator.operator} ({shapes}; {self.operator.dtype}): {self.operator.reason}."
            own = self.operator.own_error
            exact = "" if own is None else f", {own:.1e} from the same operator in fp64 on the same inputs"
            yield f"  off by {self.operator.error:.1e}{exact}; inputs off by {self.operator.input_error:.1e}"
        else:
            yield "Operator: none of its operators differs by itself."
        also = [each for each in self.modules if each.adds_error and each is not self.guilty]
        inner = [each for each in also if not (self.guilty.name + ".").startswith(each.name + ".") and each.name]
        if inner:
            yield f"Other modules that add an error: {', '.join(each.name for each in inner[:_SHOWN_MODULES])}"
        alone = [each for each in self.modules if each.problem]
        if alone:
            yield f"{len(alone)} modules cannot be run alone: {alone[0].name}: {alone[0].problem}"

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        operator = None
        if self.operator is not None:
            operator = {
                key: value for key, value in vars(self.operator).items() if key not in ("operation", "expected")
            }
        return {
            "error": self.error,
            "dtype": self.dtype,
            "module": None if self.guilty is None else vars(self.guilty),
            "operator": operator,
            "reference_nonfinite": self.reference_nonfinite
            and {"module": self.reference_nonfinite[0], "operator": self.reference_nonfinite[1].operator},
            "modules": [vars(each) for each in self.modules],
        }


def explain(model: Any, reference: Any, twin: Any, inputs: Mapping[str, torch.Tensor]) -> Explanation:
    """Find where a torch model leaves its reference; the arguments are those of `modules.SideBySide`.

    For models that fit into memory three times over, with a copy of the inputs and outputs of each module.
    """
    from pytest_hfaccel.explain.modules import SideBySide
    from pytest_hfaccel.explain.operators import first_difference, first_nonfinite

    sides = SideBySide(model, reference, twin, inputs)
    modules, guilty = sides.compare()
    operator = None
    dtype = str(sides.device.dtype).removeprefix("torch.")
    nonfinite = first_nonfinite(sides.device, sides.reference, inputs) if sides.has_new_nonfinite else None
    if nonfinite is not None:
        name, operator = nonfinite
        guilty = next((each for each in modules if each.name == name), guilty)
    elif sides.reference_is_nonfinite:
        made = first_nonfinite(sides.reference, sides.device, inputs)
        return Explanation(modules[-1].error, modules, None if made else guilty, None, dtype, made)
    elif guilty is not None:
        call = sides.expected[guilty.name]
        operator = first_difference(sides.device, sides.reference, guilty.name, call, guilty.budget)
    return Explanation(modules[-1].error, modules, guilty, operator, dtype)
