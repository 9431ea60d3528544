"""The memory of a cell: how much is asked for before it is loaded, and what it turns out to need."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.memory import ProcessMemory
from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, Cell, Device
from pytest_hfaccel.pool.account import HOST, Reservation, resource_of
from pytest_hfaccel.pool.table import key_text

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.engine.runner import Runner

_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_SLACK = 1.25
"""On top of weights: activations, workspaces, what an allocator rounds up. An engineering margin, not a measurement."""
_LEAST_SLACK_BYTES = 64 * 2**20
_GRAPHS = 3
"""A runtime of exported graphs has a torch model in fp32 while it converts, the graph, and what it compiled."""
_TRAINING = 4
"""Weights, gradients, and two more copies of their size: the results of the steps that are compared."""


class CellMemory:
    """The reservation of one cell. It is made once, before the cell first needs memory, and lasts until `release`.

    Args:
        runner: What the cells of the run share.
        cell: The cell.
    """

    def __init__(self, runner: Runner, cell: Cell) -> None:
        self._runner = runner
        self._cell = cell
        # Where the model is loaded: checks of a class load it on the CPU.
        self._loaded = replace(cell, device=CPU) if cell.device == CLASS_LEVEL else cell
        self._reservation: Reservation | None = None
        self._process = ProcessMemory()
        self._before = self._peak = 0
        self._on_device = 0
        self._is_whole = False

    @property
    def is_shared(self) -> bool:
        """Whether other processes share the machine's memory with this one."""
        return self._runner.account.ledger is not None

    def reserve(self) -> None:
        """Wait for the memory, unless that has been done.

        Raises:
            PoolExhausted: The machine's budget does not suffice, whoever waits.
            HfAccelError: The checkpoint, whose size decides, cannot be prepared.
        """
        if self._reservation is not None or not self.is_shared:
            return
        wanted, least = self._estimate()
        self._reservation = self._runner.account.reserve(self._cell.id, wanted, least)
        self._is_whole = not self._runner.has_reference(self._loaded)
        self._process.reset_peak()
        self._before = self._peak = int(self._process.read()["current_bytes"])

    def note_loaded(self, loaded: LoadedModel) -> None:
        """Correct the estimate of a device with memory of its own: the model is there now."""
        if self._reservation is None:
            return
        self._on_device = max(self._on_device, loaded.nbytes)
        name = resource_of(self._loaded.device)
        if name != HOST and not self._grows:
            self._reservation.correct({name: with_slack(loaded.nbytes)})

    def note(self) -> None:
        """Correct what is reserved of the host's memory, after a check: up to what was used, down after the reference.

        Computing the reference needs the most. Once it is known, and where nothing else makes copies of the model, what
        is left to come is small.
        """
        if self._reservation is None:
            return
        reading = self._process.read()
        is_own_peak = "since its reset" in reading["peak_source"]
        self._peak = max(self._peak, int(reading["peak_bytes" if is_own_peak else "current_bytes"]))
        reserved = self._reservation.amounts.get(HOST, 0)
        if self._is_whole and not self._grows and self._runner.has_reference(self._loaded):
            held = max(0, int(reading["current_bytes"]) - self._before)
            twin = _BYTES["fp32"] * self._runner.elements(self._loaded)
            needed = with_slack(held + twin)
            self._reservation.correct({HOST: needed if reserved > needed else max(reserved, held)})
        else:
            self._reservation.correct({HOST: max(reserved, self._peak - self._before)})

    def peak_bytes(self, checks_run: int) -> dict[str, int]:
        """Return the most bytes this cell took, by resource; empty where that says nothing about another run of it.

        Args:
            checks_run: How many checks it has had. With fewer than there are, or with a reference from elsewhere,
                it took less than it may take.
        """
        if not (self._is_whole and self._reservation and checks_run >= len(self._runner.checks_of(self._cell))):
            return {}
        name = resource_of(self._loaded.device)
        return {HOST: self._peak - self._before, **({} if name == HOST else {name: self._on_device})}

    def release(self, checks_run: int) -> None:
        """Give the memory back, and remember what was measured."""
        measured = self.peak_bytes(checks_run)
        if measured and self._runner.account.ledger is not None:
            self._runner.account.ledger.remember(key_text(self._cell.key), measured)
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    @property
    def _grows(self) -> bool:
        """Whether later checks make copies of the model."""
        config = self._runner.config
        return self._loaded.device.traits.exported or config.training or config.compile or config.attention

    def _estimate(self) -> tuple[dict[Device, int], dict[Device, int]]:
        """Return bytes by device: those that the cell is expected to need, and those that it certainly needs.

        Measured ones of an earlier run of the cell, else those that follow from the number of weights.
        """
        cell, runner = self._loaded, self._runner
        own = runner.expected_bytes(cell)
        if not kind_named(cell.device.kind).traits.needs_checkpoint:
            return {cell.device: own or 0}, {cell.device: own or 0}
        elements = runner.elements(cell)
        weights = own if own is not None else elements * _BYTES[cell.dtype]
        certain = weights if cell.device.traits.torch_module or own is not None else 0
        ledger = runner.account.ledger
        measured = ledger.measured(key_text(self._cell.key)) if ledger is not None else {}
        name = resource_of(cell.device)
        if HOST in measured and name in measured:
            amounts = {CPU: with_slack(measured[HOST])}
            if name != HOST:
                amounts[cell.device] = with_slack(measured[name])
            return amounts, {cell.device: certain}
        copies = _TRAINING if runner.config.training or runner.config.compile else 1
        amounts = Counter({cell.device: with_slack(copies * weights)})
        if cell.device.traits.exported:
            amounts[CPU] += _GRAPHS * _BYTES["fp32"] * elements
        # The reference, and the twin on the CPU that the canary compares with.
        amounts[CPU] += runner.reference_bytes(cell) + _BYTES["fp32"] * elements
        return dict(amounts), {cell.device: certain}


def with_slack(nbytes: int) -> int:
    """Return bytes of weights with room for what comes on top."""
    return max(int(nbytes * _SLACK), nbytes + _LEAST_SLACK_BYTES)


def free_device_bytes(device: Device) -> int | None:
    """Return the free bytes of a device that torch computes on; `None` where its module does not say."""
    from importlib import import_module

    row = kind_named(device.kind).torch
    if row is None or not row.mem_get_info or device.kind == CPU.kind:
        return None
    import torch

    if row.package:
        import_module(row.package)
    function: Any = getattr(getattr(torch, row.module, None), row.mem_get_info, None)
    try:
        return int(function(torch.device(device.torch_name))[0]) if function is not None else None
    except (RuntimeError, AssertionError):
        return None  # the device does not answer: loading says so
