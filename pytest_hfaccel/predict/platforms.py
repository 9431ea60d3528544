"""What a user means by a piece of hardware: a device that is here, or the chip that stands for one that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pytest_hfaccel.core.devices import registered_kinds
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import DEVICE_KINDS, Device
from pytest_hfaccel.hardware.precisions import NATIVE, PrecisionSupport, precision_support

GB = 10**9
"""Bytes of a vendor's gigabyte."""

KINDS = (*(kind for kind in DEVICE_KINDS if kind != "fake"), "qualcomm")
"""The kinds of device that can be asked about; Qualcomm's have no backend and are only declared."""

_CPUS = ("cpu", "openvino")
_HALF = ("bf16", "fp16")


class Link(NamedTuple):
    """The connection of a device to others of its kind: the vendor's name, and bytes per second in one direction."""

    name: str
    one_way: float


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

    def peak(self, dtype: str) -> float | None:
        """Return the peak operations per second for products at a dtype; `None` where none are published.

        fp32 is fp32 and not TF32, as this package runs it. `int8` here means int8 weights that are multiplied in fp32
        (`pytest_hfaccel.tracing.trace`). A half precision without a published speed of its own has that of fp32.
        """
        return self.flops.get(self.computes_at(dtype))

    def computes_at(self, dtype: str) -> str:
        """Return the dtype whose published speed holds for products at a dtype."""
        return dtype if dtype in _HALF and dtype in self.flops else "fp32"

    def with_cores(self, cores: int) -> DeviceSpecification:
        """Return a CPU of fewer (or more) cores: the speed in proportion, the memory's bandwidth as it is."""
        share = cores / self.cores
        flops = {dtype: share * peak for dtype, peak in self.flops.items()}
        return replace(self, name=f"{cores} of the {self.cores} cores of {self.name}", cores=cores, flops=flops)


@dataclass(frozen=True)
class Specifications:
    """The known devices by the name users type, and the name of the one that stands for a kind by default."""

    by_slug: Mapping[str, DeviceSpecification]
    defaults: Mapping[str, str]

    def get(self, slug: str, kind: str | None = None) -> DeviceSpecification:
        """Return a device by its name in any case.

        Raises:
            ConfigError: There is none of that name, or it is not of that kind; the message lists those there are.
        """
        found = self.by_slug.get(slug.lower())
        if found is not None and (kind is None or kind in found.kinds):
            return found
        known = self.slugs(kind)
        near = get_close_matches(slug.lower(), known, n=1)
        suggestion = f" Did you mean {near[0]!r}?" if near else ""
        of_kind = f" for {kind}" if kind else ""
        raise ConfigError(
            f"{slug!r} is not a device whose data sheet is known{of_kind}.{suggestion}",
            hint=f"Known{of_kind}: {', '.join(known) or 'none'}.",
        )

    def slugs(self, kind: str | None = None) -> list[str]:
        """The names of the devices of a kind, or of all."""
        return [slug for slug, each in self.by_slug.items() if kind is None or kind in each.kinds]

    def of_driver(self, name: str, kind: str) -> DeviceSpecification | None:
        """Return the device that a driver calls by this name; of several that fit, the one that fits the longest."""
        fitting = [
            (len(part), each)
            for each in self.by_slug.values()
            for part in each.match
            if kind in each.kinds and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", name, re.IGNORECASE)
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


@cache
def load_specifications() -> Specifications:
    """Read the table that comes with this package."""
    import yaml

    data = yaml.safe_load(files(__package__).joinpath("devices.yaml").read_text(encoding="utf-8"))
    found = {
        slug: DeviceSpecification(
            slug=slug,
            name=row["name"],
            kinds=tuple(row["kinds"]),
            source=row["source"],
            published=row["published"],
            bandwidth=row["bandwidth"] * GB,
            memory_bytes=round(row["memory"] * GB) if "memory" in row else None,
            flops={dtype: 1e12 * speed for dtype, speed in row.get("tflops", {}).items()},
            # Vendors state both directions together.
            link=Link(row["link"]["name"], row["link"]["bandwidth"] * GB / 2) if "link" in row else None,
            cores=row.get("cores", 0),
            match=tuple(row.get("match", ())),
        )
        for slug, row in data["devices"].items()
    }
    return Specifications(found, data["defaults"])


@dataclass(frozen=True)
class Platform:
    """A piece of hardware to predict for.

    Attributes:
        name: What the user wrote; the key of every result.
        kind: Kind of device.
        device: The device's id where it is here or its rows are in the database, else the kind and the chip.
        device_name: What its driver calls it; empty where that is not known.
        is_present: Whether it is in this machine.
        chip: Its data sheet, or that of the chip which stands for it; `None` where there is none.
        why_chip: Why that chip stands for it, without a full stop; empty where it is the chip itself.
        memory_bytes: Its memory; `None` where that is not known.
        memory_source: Where that is known from, without a full stop.
        presence: What the probe found, where it is in this machine.
    """

    name: str
    kind: str
    device: str
    device_name: str = ""
    is_present: bool = False
    chip: DeviceSpecification | None = None
    why_chip: str = ""
    memory_bytes: int | None = None
    memory_source: str = ""
    presence: Presence | None = None

    def precision(self, dtype: str) -> PrecisionSupport:
        """Return how it computes at a dtype. Of a CPU that is not here its data sheet says it."""
        if self.presence is not None:
            return precision_support(self.presence, dtype)
        chip = self.chip
        if self.kind in _CPUS and chip is not None and chip.cores and dtype in _HALF and dtype not in chip.flops:
            return PrecisionSupport(is_native=False, reason=f"no speed at {dtype} is published for {chip.name}")
        return NATIVE

    @property
    def chip_name(self) -> str:
        """What its driver calls it, else the chip that stands for it; empty without one."""
        return self.device_name or (self.chip.name if self.chip else "")

    @property
    def title(self) -> str:
        """The name with the chip, for people."""
        chip = self.chip_name
        return f"{self.name} ({chip})" if chip and chip.lower() != self.name.lower() else self.name


@dataclass(frozen=True)
class Platforms:
    """Finds the platform a user means.

    Attributes:
        specifications: The known data sheets.
        known: Devices of this machine, then those with rows in the database.
        chosen: Which chip stands for a kind of device, from the configuration file.
    """

    specifications: Specifications
    known: tuple[Presence, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Platform:
        """Return the platform of a name.

        Args:
            name: A kind (`cuda`), a device (`cuda:1`, `openvino:GPU`), a kind with a chip (`cuda:h100-sxm`), or a chip
                (`h100-sxm`). A device of torch may have a compiler (`cpu+inductor`): that of rows measured with it.

        Raises:
            ConfigError: There is no such kind, device or chip.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{name!r} is not a kind of hardware. Allowed: {', '.join(KINDS)}.")
        if "+" in name:
            named, suffix = Device.parse(name, registered_kinds()), name.strip().lower().partition("+")[2]
            eager = self.of(named.eager.id if ":" in name else named.eager.kind)
            return replace(eager, name=name, kind=named.kind, device=f"{eager.device}+{suffix}")
        kind, _, target = name.strip().partition(":")
        kind, sheets = kind.lower(), self.specifications
        if kind not in KINDS:
            if target or kind not in sheets.by_slug:
                raise ConfigError(
                    f"{name!r} is not a kind of hardware. Allowed: {', '.join(KINDS)}.",
                    hint="A chip that is not on this machine is named with its kind, as in 'cuda:h100-sxm'. Known: "
                    f"{', '.join(sheets.slugs())}.",
                )
            return _of_chip(name, sheets.get(kind).kinds[0], sheets.get(kind))
        if target.lower() in sheets.by_slug:
            return _of_chip(name, kind, sheets.get(target, kind))
        device = self._device(kind, target)
        for each in self.known:
            if each.device.kind == kind and (not target or each.device == device):
                return self._of_known(name, kind, each)
        is_accelerator = kind == "openvino" and target and device and device.target.partition(".")[0] != "CPU"
        if kind not in sheets.defaults or is_accelerator:
            return Platform(name, kind, device.id if device and target else kind)
        return _of_chip(name, kind, *self._stand_in(kind))

    def present(self) -> list[str]:
        """The ids of the devices of this machine that models run on."""
        return [each.device.id for each in self.known if each.present]

    def _device(self, kind: str, target: str) -> Device | None:
        if kind == "qualcomm":
            return None
        try:
            return Device.parse(f"{kind}:{target}" if target else kind)
        except ConfigError as error:
            chips = self.specifications.slugs(kind)
            hint = f"Chips of this kind: {', '.join(chips)}." if chips else None
            raise ConfigError(error.message, hint=hint) from error

    def _of_known(self, name: str, kind: str, known: Presence) -> Platform:
        chip, why, cores = self.specifications.of_driver(known.name, kind), "", known.details.get("cores", 0)
        if chip is None and kind in self.specifications.defaults and (cores or kind not in _CPUS):
            chip = self._stand_in(kind)[0]
            why = f"which stands for {known.name or known.device.id}, whose own data sheet is not known"
        if chip is not None and chip.cores and cores:
            chip = chip.with_cores(int(cores))
        source = "this machine's" if known.present else "of its data sheet"
        memory = known.memory_bytes or (chip.memory_bytes if chip else None)
        return Platform(
            name=name,
            kind=kind,
            device=known.device.id,
            device_name=known.name,
            is_present=known.present,
            chip=chip,
            why_chip=why,
            memory_bytes=memory,
            memory_source=source if memory else "",
            presence=known if known.present else None,
        )

    def _stand_in(self, kind: str) -> tuple[DeviceSpecification, str]:
        """Return the chip that stands for a kind of device of which nothing is known, and why that one."""
        slug = self.chosen.get(kind)
        why = "chosen in the configuration file" if slug else f"the default for {kind}"
        chip = self.specifications.get(slug or self.specifications.defaults[kind], kind)
        return chip, f"{why}; another one is named as '{kind}:<chip>'"


def _of_chip(name: str, kind: str, chip: DeviceSpecification, why: str = "") -> Platform:
    return Platform(
        name=name,
        kind=kind,
        device=f"{kind}:{chip.slug}",
        chip=chip,
        why_chip=why,
        memory_bytes=chip.memory_bytes,
        memory_source="of its data sheet" if chip.memory_bytes else "",
    )
