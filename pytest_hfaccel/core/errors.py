"""The exceptions of this package, one short tree.

    HfAccelError
    ├── ConfigError             an invalid option, model name or device
    ├── RegistryError           a registry file with mistakes, all of them at once
    ├── BackendUnavailable      the device or the precision is not available here
    ├── PackageMissing          the class needs a package that is not installed
    ├── HubError                the hub did not answer
    ├── GatedError              the hub answered: this model needs a licence and a token
    ├── CheckpointError         the checkpoint on disk cannot be read or written
    ├── LoadError               the model could not be built, loaded, converted or compiled
    │   └── NotWhatTheFilesHold     a class made other weights of the files than they hold
    ├── DeviceCrashed           the process that computes (a browser) died
    ├── DeviceTimeout           it did not answer in time
    ├── InfraError              the machine is at fault: disk, memory, driver, a wrong product
    └── OutOfMemory             the device's memory did not suffice
        └── PoolExhausted       the pool's budget did not suffice, with its usage

Every exception knows the `status` a cell gets for it, and the `stage` it happened in (see
`pytest_hfaccel.core.results`). Only `pytest_hfaccel.plugin` turns them into pytest outcomes.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import ClassVar


class HfAccelError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: The place, the problem and, where there is one, the list of allowed values.
        stage: Where in a cell's life it happened; one of `pytest_hfaccel.core.results.Stage`.
        hint: The next step for the reader, shown on a separate line.
        cause: The component responsible, where the raiser knows it: one of `pytest_hfaccel.core.results.Cause`.
    """

    status: ClassVar[str] = "error"
    default_stage: ClassVar[str] = "resolve"
    default_cause: ClassVar[str] = ""

    def __init__(
        self, message: str, *, stage: str | None = None, hint: str | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage or self.default_stage
        self.hint = hint
        self.cause = cause or self.default_cause

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(HfAccelError):
    """Invalid option, model name, device or dtype."""


class RegistryError(HfAccelError):
    """A registry file with mistakes.

    Args:
        problems: One line per mistake, each with file, path, problem and allowed values.
    """

    def __init__(self, problems: list[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = problems


class BackendUnavailable(HfAccelError):
    """The device, its runtime or the asked precision is not available on this machine."""

    status = "unavailable"


class PackageMissing(HfAccelError):
    """The model's class needs a package that is not installed."""

    status = "unavailable"
    default_cause = "package"


class HubError(HfAccelError):
    """The hub did not answer, answered with an error, or is switched off."""

    status = "hub_error"


class GatedError(HfAccelError):
    """The hub answered that this model needs an accepted licence and a token."""

    status = "gated"


class CheckpointError(HfAccelError):
    """The checkpoint cannot be read, or cannot be written (no space, no permission)."""

    default_stage = "load"


class LoadError(HfAccelError):
    """The model could not be built, loaded, converted or compiled; `stage` says which."""

    default_stage = "load"


class NotWhatTheFilesHold(LoadError):
    """A class's `from_pretrained` made other weights than the files have, so that no device has a part in it."""


class DeviceCrashed(HfAccelError):
    """The process that computes for a device (a browser, its page or its GPU process) died; this one did not."""

    status = "crashed"
    default_stage = "run"
    default_cause = "runtime"


class DeviceTimeout(HfAccelError):
    """The process that computes for a device did not answer in time, and was ended."""

    status = "timeout"
    default_stage = "run"
    default_cause = "runtime"


class InfraError(HfAccelError):
    """The machine cannot be relied on, or an earlier cell has left its device unusable; says nothing of the model."""

    status = "infra_error"


class OutOfMemory(HfAccelError):
    """The device's memory did not suffice, also after evicting everything idle and trying again."""

    status = "out_of_memory"
    default_stage = "load"


class PoolExhausted(OutOfMemory):
    """The pool's memory budget does not suffice for what is leased; the message states the usage."""


_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""What colours text in a terminal: messages of torch and others have it, and a report shows it as `[96m`."""


def first_line(said: str | BaseException | None) -> str:
    """Return the first line of a message that is not blank; without any, an exception's class or an empty text."""
    lines = _TERMINAL_CODES.sub("", "" if said is None else str(said)).splitlines()
    nothing = type(said).__name__ if isinstance(said, BaseException) else ""
    return next((line.strip() for line in lines if line.strip()), nothing)


def error_line(error: BaseException) -> str:
    """Return an exception on one line: `ValueError: the first line of its message`, or `ValueError` alone."""
    name = type(error).__name__
    return f"{name}: {first_line(error)}" if str(error).strip() else name


def shorten(text: str, length: int) -> str:
    """Return a text of at most so many characters; a longer one ends in `...`."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def line_of_transformers(error: BaseException, under: str = "") -> str:
    """Return the innermost line of transformers that an exception passed, `transformers/...:line: code`; else "".

    Args:
        error: The exception; if it was raised from another one, that one is looked at.
        under: A folder in transformers; lines elsewhere are passed over. Without one the innermost line that is not
            torch's must be transformers'.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = frame.filename.replace("\\", "/")
        package, is_inside, rest = file.rpartition(f"/transformers/{under}")
        if package and is_inside:
            found = f"transformers/{under}{rest}:{frame.lineno}: {frame.line}"
        elif not under and "/torch/" not in file:
            found = ""
    return found


def format_bytes(count: int) -> str:
    """Return bytes as messages state them, in binary units: `512 B`, `1.5 MiB`."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def format_names(names: Sequence[str], shown: int) -> str:
    """Return the first names of many: `a, b and 3 more`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


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
    """Whether an exception of torch, OpenVINO, the operating system or Python means that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


# Lower case. After these, CUDA, ROCm and SYCL refuse every further call of the process ("sticky" errors). A kernel of
# the model may have caused the first, the machine the second.
_LOSES_DEVICE = (
    "an illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out and was terminated",
    "misaligned address",
    "an illegal instruction was encountered",
    "invalid program counter",
    "invalid address space",
    "hardware stack error",
    "error_device_lost",
)
_MACHINE_IS_AT_FAULT = (
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "nvrm: xid",
    "xid error",
    "gpu is lost",
    "has fallen off the bus",
    "gpu requires reset",
    "system not yet initialized",
)


def is_device_lost(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, means that this process cannot use its device any more."""
    signs = (*_LOSES_DEVICE, *_MACHINE_IS_AT_FAULT)
    return any(sign in text for text in _texts(error) for sign in signs)


def is_fault_of_machine(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, reports a fault of the hardware or its driver."""
    return any(sign in text for text in _texts(error) for sign in _MACHINE_IS_AT_FAULT)


def _texts(error: BaseException) -> Iterator[str]:
    """Yield the texts of an exception and its causes, as far as they are those of a runtime."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (RuntimeError, HfAccelError)):
            yield str(found).lower()
        found = found.__cause__


def cause_of_error(error: BaseException) -> str:
    """Return the component responsible for an error, if it or an error that caused it names one; else an empty text."""
    found: BaseException | None = error
    while found is not None:
        if cause := getattr(found, "cause", ""):
            return str(cause)
        if isinstance(found, ImportError):
            return "package"
        found = found.__cause__
    return ""
