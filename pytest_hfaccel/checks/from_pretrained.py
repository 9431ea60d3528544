"""Check `from_pretrained`: the checkpoint loads without a missing key, and survives being saved and loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.core.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

NAME = "from_pretrained"
_DTYPE = "fp32"
_ROOM = 1e-5
"""How far outputs may be apart, in multiples of their largest number. The weights must be the same bit by bit; but the
CPU's kernels sum in an order that depends on where in memory these lie: nine of the first 173 classes of a sweep showed
that."""

_KEY_KINDS = ("missing_keys", "unexpected_keys")


def from_pretrained(context: CheckContext) -> CheckOutcome:
    """The checkpoint loads with all its keys, and save_pretrained -> from_pretrained reproduces weights and outputs."""
    with context.on_cpu(_DTYPE) as loaded:  # before the keys: they are those of the last load
        return _judged(context, loaded.pipeline_model())


def _judged(context: CheckContext, model: Any) -> CheckOutcome:
    keys = {kind: sorted(map(str, found)) for kind, found in _loading_info(context).items() if found}
    if keys:
        lines = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in keys.items()]
        return failed(NAME, "\n".join(lines), stage=Stage.LOAD, **{kind: len(names) for kind, names in keys.items()})
    measures: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    other_heads = context.source.loading_info().get("other_heads")
    if other_heads:
        measures["other_heads"] = other_heads
    inputs = context.sample.forward
    again = _saved_and_loaded(context, model)
    changed = _differing(model.state_dict(), again.state_dict(), room=0.0)
    if changed:
        return failed(NAME, f"saved and loaded, the model has other weights: {', '.join(changed)}", **measures)
    differing = _differing(_outputs(model, inputs), _outputs(again, inputs), room=_ROOM)
    if differing:
        return failed(NAME, f"saved and loaded, the model gives other outputs: {', '.join(differing)}", **measures)
    return passed(NAME, **measures)


def _loading_info(context: CheckContext) -> dict[str, Any]:
    info = context.source.loading_info()
    return {kind: info.get(kind, ()) for kind in _KEY_KINDS}


def _saved_and_loaded(context: CheckContext, model: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as directory:
        model.save_pretrained(directory)
        return context.source.torch_model_in(Path(directory), _DTYPE)


def _outputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    from pytest_hfaccel.backends.base import flatten_outputs

    with torch.no_grad():
        return flatten_outputs(model(**inputs))


def _differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], room: float) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [
        name
        for name in names
        if name not in before or name not in after or not _is_same(before[name], after[name], room)
    ]


def _is_same(before: torch.Tensor, after: torch.Tensor, room: float) -> bool:
    """Whether two tensors are equal up to `room` times the largest number of the first; NaN equals NaN."""
    import torch

    if torch.equal(before, after):
        return True
    if before.shape != after.shape:
        return False
    first, second = before.double(), after.double()
    finite = first[first.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    return bool(torch.allclose(first, second, rtol=0.0, atol=room * largest, equal_nan=True))
