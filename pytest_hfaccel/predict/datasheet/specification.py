"""What a vendor states of a device. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

GB = 10**9
"""Bytes of a vendor's gigabyte."""


@dataclass(frozen=True)
class Link:
    """The connection of a device to others of its kind.

    Attributes:
        name: What the vendor calls it.
        bytes_per_second: Both directions together, as vendors state it.
    """

    name: str
    bytes_per_second: float

    @property
    def one_way(self) -> float:
        """Bytes per second in one direction."""
        return self.bytes_per_second / 2


@dataclass(frozen=True)
class DeviceSpecification:
    """A device's public specification.

    Attributes:
        slug: The name users type, e.g. `h100-sxm`.
        name: The vendor's name.
        kinds: Kinds of device it is one of, as in `pytest_hfaccel.core.spec.DEVICE_KINDS`.
        source: Address of the data sheet.
        published: When the vendor published it, `YYYY-MM`.
        bandwidth: Bytes per second of its memory.
        memory_bytes: Bytes of its memory; `None` for CPUs, whose memory is the machine's.
        flops: Peak operations per second by dtype, dense; empty where the vendor publishes none.
        link: Its connection to other devices; `None` where it has none of its own.
        cores: Cores of a CPU, else 0.
        match: Parts of the names by which drivers call it.
        derived: Which numbers follow from stated ones, and how; empty where all are stated.
    """

    slug: str
    name: str
    kinds: tuple[str, ...]
    source: str
    published: str
    bandwidth: float
    memory_bytes: int | None = None
    flops: dict[str, float] = field(default_factory=dict, hash=False)
    link: Link | None = None
    cores: int = 0
    match: tuple[str, ...] = ()
    derived: str = ""

    def peak(self, dtype: str) -> float | None:
        """Return the peak operations per second for products at a dtype; `None` where none are published.

        fp32 is fp32 and not TF32, as this package runs it. `int8` here means int8 weights that are multiplied in fp32
        (`pytest_hfaccel.tracing.trace`). A half precision without a published speed of its own has that of fp32.
        """
        return self.flops.get(self.computes_at(dtype))

    def computes_at(self, dtype: str) -> str:
        """Return the dtype whose published speed holds for products at a dtype."""
        return dtype if dtype in ("bf16", "fp16") and dtype in self.flops else "fp32"

    def with_cores(self, cores: int) -> DeviceSpecification:
        """Return a CPU of fewer (or more) cores: the speed in proportion, the memory's bandwidth as it is."""
        share = cores / self.cores
        flops = {dtype: share * peak for dtype, peak in self.flops.items()}
        return replace(self, name=f"{cores} of the {self.cores} cores of {self.name}", cores=cores, flops=flops)
