"""What a process of a run has of the machine's devices, entered in the ledger that it shares with the others.

    account = DeviceAccount(Ledger(path), budget, is_share=True, pool=pool)
    with account.computing(cell.device):                 # while a test runs; several processes may
        reservation = account.reserve(cell.id, {HOST: 2**30}, {HOST: 2**28})
        ...
        with account.alone(cell.device):                 # nobody else computes on it
            measure()
        reservation.release()

Without a ledger (a serial run) none of this does anything: the memory budget of the process's own pool is all there is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.cpu import Memory, read_memory
from pytest_hfaccel.hardware.visibility import physical_device
from pytest_hfaccel.pool.ledger import TURNS, Claim, Ledger, turns_of
from pytest_hfaccel.pool.table import Budget

HOST = "host"
"""The ledger's name for the memory, and the cores, of the machine: what every device without its own shares."""


def resource_of(device: Device) -> str:
    """Return the ledger's name of a device: the physical one, whatever this process is shown and calls it."""
    if device.traits.uses_host_memory(device.target):
        return HOST
    return physical_device(device)


def memory_of(resources: Iterable[str], nvml: Any = None) -> dict[str, Memory]:
    """Return how much memory the machine has under these names, and how much is free, whoever uses the rest.

    No runtime is asked, because that would start it in this process: only main memory and GPUs of NVIDIA are known.

    Args:
        resources: Names, as `resource_of` returns them.
        nvml: NVIDIA's library; the installed one when not given.
    """
    from pytest_hfaccel.hardware import nvidia

    found, names = {}, list(resources)
    if HOST in names:
        found[HOST] = read_memory()
    if any(name.startswith("cuda:") for name in names):
        nvml = nvml if nvml is not None else nvidia.load_nvml()
        with suppress(nvidia.NvmlError, AttributeError):
            for number, gpu in enumerate(() if nvml is None else nvidia.list_gpus(nvml)[1]):
                if f"cuda:{number}" in names and gpu.free_bytes is not None:
                    found[f"cuda:{number}"] = Memory(gpu.memory_bytes, gpu.free_bytes)
    return found


class IdleModels(Protocol):
    """As much of the model cache as an account needs."""

    def idle_bytes(self) -> Mapping[Device, int]:
        """Bytes of the models that nobody leases, by device."""

    def evict_idle(self, device: Device | None = None) -> int:
        """Free those models."""


class Reservation:
    """The memory of one piece of work, until `release`.

    Args:
        claim: The claim in the ledger; `None` where there is no ledger.
        end: Called at the release.
    """

    def __init__(self, claim: Claim | None = None, end: Callable[[], None] = lambda: None) -> None:
        self._claim = claim
        self._end = end

    @property
    def amounts(self) -> Mapping[str, int]:
        """Bytes by resource."""
        return dict(self._claim.amounts) if self._claim is not None else {}

    def correct(self, amounts: Mapping[str, int]) -> None:
        """Replace estimates by what is known now, of the resources that were reserved."""
        if self._claim is not None:
            self._claim.resize({name: amounts[name] for name in self._claim.amounts if name in amounts})

    def release(self) -> None:
        """Give it back. A second call does nothing."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
            self._end()


class DeviceAccount:
    """The claims of this process.

    Args:
        ledger: The ledger; `None` for none.
        budget: Bytes that all processes together may have on a device; see `device_budget`.
        is_share: Whether that is a share of what is free.
        pool: The models that this process keeps without using them.

    Attributes:
        on_wait: Called while this process waits for others, with the seconds since the last call.
    """

    def __init__(self, ledger: Ledger | None, budget: Budget, pool: IdleModels, *, is_share: bool = True) -> None:
        self.ledger = ledger
        self._budget = budget
        self._is_share = is_share
        self._pool = pool
        self.on_wait: Callable[[float], object] = lambda _: None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._limits: dict[str, int | None] = {}
        self._idle: Claim | None = None
        self._computing: tuple[dict[str, int], Claim] | None = None

    def limit(self, device: Device) -> int | None:
        """Return how many bytes all processes together may have where this device has its memory; `None`: no limit."""
        if self._open() is None:
            return None
        assert self.ledger is not None  # noqa: S101 - see _open
        name = resource_of(device)
        if name not in self._limits:
            self._limits[name] = self.ledger.set_limit(name, lambda: self._budget(device), is_share=self._is_share)
        return self._limits[name]

    def reserve(self, label: str, wanted: Mapping[Device, int], least: Mapping[Device, int]) -> Reservation:
        """Wait until the machine has room for a piece of work. Meanwhile this process does not count as computing.

        Args:
            label: For whom, in messages.
            wanted: Bytes that it is expected to need, by device. Devices that share a memory add up.
            least: Bytes that it certainly needs. What is wanted beyond the limit is not asked for: it then has the
                device to itself, as it has in a serial run.

        Raises:
            PoolExhausted: What it certainly needs is more than the limit.
        """
        ledger = self._open()
        if ledger is None:
            return Reservation()
        needs, certain, limits = Counter[str](), Counter[str](), {}
        for device in wanted:
            name = resource_of(device)
            limits[name] = self.limit(device)
            needs[name] += wanted[device]
            certain[name] += least.get(device, 0)
        amounts = {}
        for name, limit in limits.items():
            fits = limit is None or needs[name] <= limit
            amounts[name] = needs[name] if fits else max(certain[name], limit or 0)
        with self._not_computing():
            self._note_idle()
            claim = ledger.claim(amounts, label, while_waiting=lambda seconds: self._wait(seconds, amounts))
        return Reservation(claim, self.settle)

    def settle(self) -> None:
        """Enter what the pool keeps for later; free it where another process waits for the memory."""
        ledger = self._open()
        if ledger is None:
            return
        self._note_idle()
        wanted = [name for name, amount in self._idle_amounts().items() if amount and ledger.is_waited_for(name)]
        if wanted:
            self._give_up_idle(wanted)

    @contextmanager
    def computing(self, device: Device) -> Iterator[None]:
        """Take part in the use of a device's time, and of the cores, for a `with` block: nobody measures meanwhile."""
        ledger = self._open()
        if ledger is None or self._computing is not None:
            yield
            return
        self._take_turn(dict.fromkeys((turns_of(HOST), turns_of(resource_of(device))), 1))
        try:
            yield
        finally:
            self._end_turn()

    @contextmanager
    def alone(self, device: Device) -> Iterator[None]:
        """Have a device to this process alone for a `with` block: one that computes on the CPU, all the cores."""
        ledger = self._open()
        if ledger is None:
            yield
            return
        with self._not_computing():
            turns = {turns_of(HOST): 1, turns_of(resource_of(device)): TURNS}
            with ledger.claim(turns, f"measuring on {device}", while_waiting=self._wait):
                yield

    def stats(self) -> dict[str, Any]:
        """How often this process waited for the others, and how long, as plain JSON; empty without a ledger."""
        if self.ledger is None:
            return {}
        return {"waits": self.ledger.waits, "waited_seconds": round(self.ledger.waited_seconds, 6)}

    def close(self) -> None:
        """Give everything back."""
        if self.ledger is not None:
            self.ledger.close()
        self._begin()

    def _open(self) -> Ledger | None:
        """Return the ledger; a forked child begins with nothing of its own."""
        if self._pid != os.getpid():
            self._begin()
        return self.ledger

    def _take_turn(self, turns: dict[str, int]) -> None:
        assert self.ledger is not None  # noqa: S101 - only with a ledger
        claim = self.ledger.claim(turns, "computing", while_waiting=self._wait)
        self._computing = (turns, claim)

    def _end_turn(self) -> None:
        if self._computing is not None:
            self._computing[1].release()
            self._computing = None

    @contextmanager
    def _not_computing(self) -> Iterator[None]:
        """Let those who wait to be alone go ahead: what this process does in the block is wait, or be alone itself."""
        before = self._computing
        self._end_turn()
        try:
            yield
        finally:
            if before is not None:
                self._take_turn(before[0])

    def _idle_amounts(self) -> Mapping[str, int]:
        amounts: Counter[str] = Counter()
        for device, nbytes in self._pool.idle_bytes().items():
            amounts[resource_of(device)] += nbytes
        return amounts

    def _note_idle(self) -> None:
        assert self.ledger is not None  # noqa: S101 - only with a ledger
        amounts = self._idle_amounts()
        if self._idle is not None:
            self._idle.resize({**dict.fromkeys(self._idle.amounts, 0), **amounts})
        elif any(amounts.values()):
            self._idle = self.ledger.note_idle(amounts, "models kept for later")

    def _wait(self, seconds: float, resources: Container[str] = ()) -> None:
        self.on_wait(seconds)
        if resources:
            self._give_up_idle(resources)
        else:
            self.settle()

    def _give_up_idle(self, resources: Container[str]) -> None:
        devices = [device for device in self._pool.idle_bytes() if resource_of(device) in resources]
        for device in devices:
            self._pool.evict_idle(device)
        if devices:
            return_freed_memory()
            self._note_idle()


def return_freed_memory() -> None:
    """Have the C library return what it keeps of freed memory to the system, where it can (glibc's `malloc_trim`)."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
