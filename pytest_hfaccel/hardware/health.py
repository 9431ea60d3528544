"""The canary: can this machine be relied on? Looked at before the first cell of a process, and after a crash.

What it finds is a fault of the infrastructure (`infra_error`), and says nothing about the model that would have run, or
has just taken its process down.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import InfraError, format_bytes
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.core.stages import MACHINE, at_stage
from pytest_hfaccel.hardware.cpu import read_memory
from pytest_hfaccel.hardware.nvidia import NvmlError, list_gpus, load_nvml

LEAST_DISK_BYTES = 64 * 2**20
"""Free space in the directories of reports and cache below which nothing is run: a tiny checkpoint and its reports."""
LEAST_MEMORY_BYTES = 128 * 2**20
"""Main memory below which nothing is run: the smallest models take as much."""
_PATTERN_BYTES = 2**23
_SIZE = 96

Confirm = Callable[[Device], Presence | None]


class MachineHealth:
    """Looks at the machine before the first cell; what was found in order is not looked at again.

    Args:
        directories: What a run writes to: the name for messages, and the directory.
        confirm: Computes something on a device; only asked about suspects.
        suspects: Ids of devices on which a process has died: they have to compute something first.
        absent: Ids of devices that were not here when the run was planned; they are no fault.
    """

    def __init__(
        self,
        directories: Mapping[str, Path],
        confirm: Confirm | None = None,
        suspects: Collection[str] = (),
        absent: Collection[str] = (),
    ) -> None:
        self._directories = directories
        self._confirm = confirm
        self._suspects = set(suspects)
        self._absent = frozenset(absent)
        self._host_is_sound = False
        self._sound_devices: set[str] = set()

    def require(self, device: Device) -> None:
        """Look at what has not been found in order yet.

        Raises:
            InfraError: The machine, or the device, cannot be relied on; with the numbers.
        """
        if self._host_is_sound and device.id in self._sound_devices:
            return
        with at_stage(MACHINE):
            problems = list(self._problems(device))
        if problems:
            raise InfraError(
                f"the machine is not fit to run this: {'; '.join(problems)}",
                hint="Put that right and run again: with --hf-resume, what ended with infra_error is run, too.",
            )
        self._host_is_sound = True
        self._sound_devices.add(device.id)

    def _problems(self, device: Device) -> Iterator[str]:
        if not self._host_is_sound:
            yield from host_problems(self._directories)
            yield from _product_problem()
        if device.id in self._absent:
            return
        yield from driver_problems(device)
        if device.id in self._suspects and self._confirm is not None:
            answer = self._confirm(device)
            if answer is not None and not answer.present:
                yield f"after a crash on it, {device.id} does not answer: {answer.reason}"
            else:
                self._suspects.discard(device.id)


def host_problems(directories: Mapping[str, Path]) -> Iterator[str]:
    """Yield what is wrong with main memory and disks; takes a few milliseconds and imports nothing heavy."""
    available = read_memory().available_bytes
    if available < LEAST_MEMORY_BYTES:
        yield f"{format_bytes(available)} of main memory are free, {format_bytes(LEAST_MEMORY_BYTES)} are needed"
    else:
        pattern = bytes(range(256)) * (_PATTERN_BYTES // 256)
        if bytearray(pattern) != pattern:
            yield "main memory does not return what was written to it"
    for name, directory in directories.items():
        place = next((folder for folder in (directory, *directory.parents) if folder.exists()), None)
        try:
            free = shutil.disk_usage(place or directory).free
        except OSError as error:
            yield f"{name} {directory}: its disk does not answer: {error.strerror}"
            continue
        if free < LEAST_DISK_BYTES:
            yield f"{name} {directory}: {format_bytes(free)} are free, {format_bytes(LEAST_DISK_BYTES)} are needed"


def driver_problems(device: Device, nvml: Any = None) -> Iterator[str]:
    """Yield what is wrong with the driver of a device: NVIDIA's is asked for its GPUs; others are not asked."""
    nvml = nvml if nvml is not None else load_nvml() if device.kind == "cuda" else None
    if device.kind != "cuda" or nvml is None:
        return
    try:
        _, gpus = list_gpus(nvml)
    except (NvmlError, AttributeError) as error:
        yield f"the NVIDIA driver does not answer: {error}"
    else:
        if not gpus:
            yield "the NVIDIA driver has lost its GPUs"


def _product_problem() -> Iterator[str]:
    """Multiply two matrices of small whole numbers, exact in fp32, as the reference will, and verify the product.

    The product C of A and B is right if C v = A (B v); v has no zero, so that any one wrong number shows.
    """
    rows = [[(31 * i + 17 * j) % 13 for j in range(_SIZE)] for i in range(_SIZE)]
    columns = [[(7 * i + 29 * j) % 11 for j in range(_SIZE)] for i in range(_SIZE)]
    weights = range(1, _SIZE + 1)
    found = _times([[round(value) for value in row] for row in _matmul(rows, columns)], weights)
    if found != _times(rows, _times(columns, weights)):
        yield "the CPU computes a wrong product of two matrices"


def _matmul(left: list[list[int]], right: list[list[int]]) -> list[list[float]]:
    """By torch where the process has it, as the reference is computed; else by numpy."""
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        by_torch: list[list[float]] = (torch.tensor(left).float() @ torch.tensor(right).float()).tolist()
        return by_torch
    import numpy as np

    by_numpy: list[list[float]] = (np.array(left, dtype=np.float32) @ np.array(right, dtype=np.float32)).tolist()
    return by_numpy


def _times(matrix: list[list[int]], vector: Sequence[int]) -> list[int]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]
