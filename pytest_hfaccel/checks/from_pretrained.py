"""Check `from_pretrained`: the checkpoint loads without a missing key, and survives being saved and loaded."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

NAME = "from_pretrained"
_KEY_KINDS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def from_pretrained(context: CheckContext) -> CheckOutcome:
    """The checkpoint loads with all its keys, and save_pretrained -> from_pretrained reproduces the outputs exactly."""
    model = context.source.torch_model("fp32")  # before the keys: they are those of the last load
    keys = {kind: sorted(map(str, found)) for kind, found in _loading_info(context).items() if found}
    if keys:
        lines = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in keys.items()]
        return failed(NAME, "\n".join(lines), stage=Stage.LOAD, **{kind: len(names) for kind, names in keys.items()})
    measures = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    inputs = context.sample.forward
    differing = _differing(_outputs(model, inputs), _outputs(_saved_and_loaded(model), inputs))
    if differing:
        return failed(NAME, f"saved and loaded, the model gives other outputs: {', '.join(differing)}", **measures)
    return passed(NAME, **measures)


def _loading_info(context: CheckContext) -> dict[str, Any]:
    info = context.source.loading_info()
    return {kind: info.get(kind, ()) for kind in _KEY_KINDS}


def _saved_and_loaded(model: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as directory:
        model.save_pretrained(directory)
        return type(model).from_pretrained(directory, dtype=model.dtype, local_files_only=True).eval()


def _outputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    from pytest_hfaccel.backends.outputs import flatten_outputs

    with torch.no_grad():
        return flatten_outputs(model(**inputs))


def _differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    import torch

    names = sorted(before.keys() | after.keys())
    return [
        name
        for name in names
        if name not in before
        or name not in after
        or before[name].shape != after[name].shape
        # assert_close with no room compares bit by bit but takes NaN for equal to NaN.
        or not torch.allclose(before[name].double(), after[name].double(), rtol=0.0, atol=0.0, equal_nan=True)
    ]
