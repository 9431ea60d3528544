"""A runtime that ran out of memory, whatever exception it raised for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_hfaccel.core.errors import OutOfMemory, is_out_of_memory


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
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"{device} ran out of memory: {first_line}", stage=stage) from error
