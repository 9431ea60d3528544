"""Recognising that a runtime ran out of memory, whatever exception it raised for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_hfaccel.errors import OutOfMemory

# Lower case. torch on every device says "out of memory" but for the CPU allocator ("can't allocate memory");
# OpenVINO's GPU plugin passes on OpenCL's error names, and its CPU plugin C++'s std::bad_alloc.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "cl_out_of_resources",
    "cl_out_of_host_memory",
    "cl_mem_object_allocation_failure",
    "ze_result_error_out_of_device_memory",
    "ze_result_error_out_of_host_memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, OpenVINO or Python means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def out_of_memory_raised(device: str, stage: str) -> Iterator[None]:
    """Turn a runtime's out-of-memory error inside the block into `OutOfMemory`.

    Args:
        device: Device id, for the message.
        stage: The stage it is booked under.

    Raises:
        OutOfMemory: The block ran out of memory.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"{device} ran out of memory: {first_line}", stage=stage) from error
