"""Checks `resolves`, `from_pretrained` and `placement`: the class exists, and its checkpoint loads, on that device."""

from __future__ import annotations

import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CLASS, CheckContext, built_in, failed, is_torch_cell, passed, passed_unless
from pytest_hfaccel.core.devices import OFFLOAD
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.registry.installed import unknown_architectures
from pytest_hfaccel.upstream.transformers import packages_of_dummy

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import Placement


@built_in("resolves", stage=Stage.RESOLVE, level=CLASS)
def resolves(context: CheckContext) -> CheckOutcome:
    """The architecture exists in this transformers, with the backends it needs.

    Whether the packages that the model needs are installed is decided before any check, by the engine.
    """
    spec = context.cell.model
    measures = {"transformers": _transformers_version()}
    if spec.requires_remote_code:
        return passed(**measures, defined_in="the model's repository")
    problem = next(iter(unknown_architectures([spec])), "") or _missing_backends(spec.architecture)
    if problem:
        return failed(problem, stage=Stage.RESOLVE, **measures)
    return passed(**measures, defined_in="transformers")


@cache
def _transformers_version() -> str:
    return version("transformers")  # reads a file each time


def _missing_backends(architecture: str) -> str:
    import transformers

    packages = packages_of_dummy(getattr(transformers, architecture))
    return f"transformers offers {architecture} only with {', '.join(packages)} installed" if packages else ""


_DTYPE = "fp32"
_RELOADED_TOLERANCE = 1e-5
"""How far outputs may be apart, in multiples of their largest number. The weights must be the same bit by bit; but the
CPU's kernels sum in an order that depends on where in memory these lie: nine of the first 173 classes of a sweep showed
that."""

_KEY_KINDS = ("missing_keys", "unexpected_keys")


@built_in("from_pretrained", stage=Stage.LOAD, level=CLASS)
def from_pretrained(context: CheckContext) -> CheckOutcome:
    """The checkpoint loads with all its keys, and save_pretrained -> from_pretrained reproduces weights and outputs."""
    with context.on_cpu(_DTYPE) as loaded:  # before the keys: they are those of the last load
        return _survives_saving(context, loaded.pipeline_model())


def _survives_saving(context: CheckContext, model: Any) -> CheckOutcome:
    info = context.source.loading_info()
    keys = {kind: sorted(map(str, info[kind])) for kind in _KEY_KINDS if info.get(kind)}
    if keys:
        lines = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in keys.items()]
        return failed("\n".join(lines), stage=Stage.LOAD, **{kind: len(names) for kind, names in keys.items()})
    measures: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if info.get("other_heads"):
        measures["other_heads"] = info["other_heads"]
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as directory:
        model.save_pretrained(directory)
        reloaded = context.source.torch_model_in(Path(directory), _DTYPE)
    weights = _differing(model.state_dict(), reloaded.state_dict(), tolerance=0.0)
    if weights:
        return failed(f"saved and loaded, the model has other weights: {', '.join(weights)}", **measures)
    inputs = context.sample.forward
    outputs = _differing(_outputs(model, inputs), _outputs(reloaded, inputs), tolerance=_RELOADED_TOLERANCE)
    if outputs:
        return failed(f"saved and loaded, the model gives other outputs: {', '.join(outputs)}", **measures)
    return passed(**measures)


def _outputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    with torch.no_grad():
        return flatten_outputs(model(**inputs))


def _differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], tolerance: float) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [n for n in names if n not in before or n not in after or not _is_same(before[n], after[n], tolerance)]


def _is_same(before: torch.Tensor, after: torch.Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal up to `tolerance` times the largest number of the first; NaN equals NaN."""
    import torch

    if torch.equal(before, after):
        return True
    if before.shape != after.shape:
        return False
    first, second = before.double(), after.double()
    finite = first[first.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    return bool(torch.allclose(first, second, rtol=0.0, atol=tolerance * largest, equal_nan=True))


_OPENVINO_CHOOSERS = frozenset({"AUTO", "BATCH", "HETERO", "MULTI"})
_IMPLEMENTATIONS = ("real", "emulated")


@built_in("placement", stage=Stage.LOAD)
def placement(context: CheckContext) -> CheckOutcome:
    """The model is on the requested device with the checkpoint's weights, at the requested precision, and not mocked.

    The weights are compared where the device holds them as torch tensors; elsewhere those that were converted were.
    """
    reported = context.loaded.placement
    wanted = context.cell.device
    problems = [
        f"asked for {wanted}, but the runtime reports {device}{_because(reported)}"
        for device in reported.actual_devices
        if not is_same_device(wanted, device)
    ]
    if not reported.actual_devices:
        problems.append(f"asked for {wanted}, but the runtime reports no device at all")
    if reported.effective_dtype != context.cell.dtype:
        problems.append(f"asked for {context.cell.dtype}, but the runtime reports {reported.effective_dtype}")
    if reported.implementation not in _IMPLEMENTATIONS:
        problems.append(f"implementation {reported.implementation!r} is not one of {', '.join(_IMPLEMENTATIONS)}")
    # The weights of a model that is elsewhere need not be readable.
    if not problems and is_torch_cell(context.cell):
        problems += context.source.weight_problems(context.loaded.pipeline_model())
    measures = {"bytes": context.loaded.nbytes, **reported.to_json()}
    return passed_unless("\n".join(problems), stage=Stage.LOAD, **measures)


def _because(reported: Placement) -> str:
    why = reported.details.get("why_elsewhere")
    return f": {why}" if why else ""


def is_same_device(wanted: Device, reported: str) -> bool:
    """Whether a runtime's name for a device means the wanted one.

    A runtime may leave out the kind (`CPU` for `openvino:CPU`), or add an index to a device that has no other
    (`GPU.0` for `openvino:GPU`, `mps:0` for `mps`). OpenVINO's AUTO and its like name no device: the one that they
    chose is accepted, and recorded. A split model is on several devices of a kind; what is offloaded is elsewhere.
    """
    if wanted.kind == "openvino" and wanted.target.partition(":")[0] in _OPENVINO_CHOOSERS:
        return True
    if wanted.parallel:
        kind, _, index = reported.partition(":")
        if wanted.ranks > 1 and wanted.target:
            return kind == wanted.eager.kind and 0 <= int(index or 0) - int(wanted.target) < wanted.ranks
        return kind == wanted.eager.kind or (wanted.parallel == OFFLOAD and kind in ("cpu", "disk"))
    name = reported.lower()
    accepted = {wanted.id.lower(), wanted.target.lower() or wanted.kind}
    return any(name in (known, f"{known}.0", f"{known}:0") for known in accepted)
