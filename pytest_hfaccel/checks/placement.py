"""Check `placement`: the model is where it was asked to be, with its weights, at the precision asked for."""

from __future__ import annotations

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.spec import Device

NAME = "placement"
_OPENVINO_CHOOSERS = frozenset({"AUTO", "BATCH", "HETERO", "MULTI"})
_IMPLEMENTATIONS = ("real", "emulated")


def placement(context: CheckContext) -> CheckOutcome:
    """The model is on the requested device with the checkpoint's weights, at the requested precision, and not mocked.

    The weights are compared where the device holds them as torch tensors; elsewhere those that were converted were.
    """
    found = context.loaded.placement
    wanted = context.cell.device
    problems = [
        f"asked for {wanted}, but the runtime reports {device}"
        for device in found.actual_devices
        if not is_same_device(wanted, device)
    ]
    if not found.actual_devices:
        problems.append(f"asked for {wanted}, but the runtime reports no device at all")
    if found.effective_dtype != context.cell.dtype:
        problems.append(f"asked for {context.cell.dtype}, but the runtime reports {found.effective_dtype}")
    if found.implementation not in _IMPLEMENTATIONS:
        problems.append(f"implementation {found.implementation!r} is not one of {', '.join(_IMPLEMENTATIONS)}")
    # The weights of a model that is elsewhere need not be readable.
    if not problems and context.cell.device.traits.torch_module and context.cell.dtype != "int8":
        problems += context.source.weight_problems(context.loaded.pipeline_model())
    measures = {"bytes": context.loaded.nbytes, **found.to_json()}
    if problems:
        return failed(NAME, "\n".join(problems), stage=Stage.LOAD, **measures)
    return passed(NAME, **measures)


def is_same_device(wanted: Device, reported: str) -> bool:
    """Whether a runtime's name for a device means the wanted one.

    A runtime may leave out the kind (`CPU` for `openvino:CPU`), or add an index to a device that has no other
    (`GPU.0` for `openvino:GPU`, `mps:0` for `mps`). OpenVINO's AUTO and its like name no device: whichever they chose
    is the wanted one, and stands in the record.
    """
    if wanted.kind == "openvino" and wanted.target.partition(":")[0] in _OPENVINO_CHOOSERS:
        return True
    name = reported.lower()
    accepted = {wanted.id.lower(), wanted.target.lower() or wanted.kind}
    if name in accepted:
        return True
    return any(name in (f"{known}.0", f"{known}:0") for known in accepted)
