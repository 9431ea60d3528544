"""Compilation of a converted model for a device, at the asked precision or not at all."""

from __future__ import annotations

from typing import Any

import openvino as ov

from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.openvino.device import compile_options, core
from pytest_hfaccel.backends.openvino.precision import hint_of, require_precision
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Device


def compile_program(program: ov.Model, device: Device, dtype: str, architecture: str) -> Any:
    """Compile a model. The CPU device gets as many threads as torch has in this process.

    Args:
        program: The converted model.
        device: The device.
        dtype: The precision to compute at.
        architecture: The model's class, for messages.

    Raises:
        BackendUnavailable: The device would compute at another precision.
        LoadError: The device cannot compile it.
        OutOfMemory: Memory ran out.
    """
    import torch

    options = compile_options(device, hint_of(dtype, device), torch.get_num_threads())
    try:
        with out_of_memory_raised(device.id, "compile"):
            compiled = core().compile_model(program, device.target, options)
    except RuntimeError as error:
        raise LoadError(f"{architecture} cannot be compiled for {device}: {error}", stage="compile") from error
    require_precision(compiled, device, dtype)
    return compiled


def constant_bytes(program: ov.Model) -> int:
    """Sum the bytes of a model's constants: its weights, and what the converter computed from them."""
    return sum(op.get_byte_size() for op in program.get_ops() if op.get_type_name() == "Constant")
