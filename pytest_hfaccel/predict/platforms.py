"""What a user means by a piece of hardware: a device that is here, or the chip that stands for one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import DEVICE_KINDS, Device
from pytest_hfaccel.hardware.precisions import NATIVE, PrecisionSupport, precision_support
from pytest_hfaccel.predict.datasheet import DeviceSpecification, Specifications

KINDS = (*(kind for kind in DEVICE_KINDS if kind != "fake"), "qualcomm")
"""The kinds of device that can be asked about; Qualcomm's have no backend and are only declared."""

HALF = ("bf16", "fp16")


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
        why_chip: Why that chip stands for it, half a sentence; empty where it is the chip itself.
        memory_bytes: Its memory; `None` where that is not known.
        memory_source: Where that is known from, half a sentence.
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
        half = self.kind in ("cpu", "openvino") and self.chip is not None and self.chip.cores and dtype in HALF
        if half and self.chip is not None and dtype not in self.chip.flops:
            return PrecisionSupport(is_native=False, reason=f"no speed at {dtype} is published for {self.chip.name}")
        return NATIVE

    @property
    def title(self) -> str:
        """The name with the chip, for people."""
        chip = self.device_name or (self.chip.name if self.chip else "")
        return f"{self.name} ({chip})" if chip and chip.lower() != self.name.lower() else self.name


@dataclass(frozen=True)
class KnownDevice:
    """A device that something is known of: it was found on this machine, or has rows in the database.

    Attributes:
        device: Its id.
        name: What its driver calls it.
        is_present: Whether it is in this machine.
        memory_bytes: Its memory; `None` where that is not known.
        cores: Cores this process may use, for CPUs.
        presence: What the probe found, where it is in this machine.
    """

    device: Device
    name: str
    is_present: bool
    memory_bytes: int | None = None
    cores: int = 0
    presence: Presence | None = None


@dataclass(frozen=True)
class Platforms:
    """Finds the platform a user means.

    Attributes:
        specifications: The known data sheets.
        known: Devices of this machine, then those with rows in the database.
        chosen: Which chip stands for a kind of device, from the configuration file.
    """

    specifications: Specifications
    known: tuple[KnownDevice, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Platform:
        """Return the platform of a name.

        Args:
            name: A kind (`cuda`), a device (`cuda:1`, `openvino:GPU`), a kind with a chip (`cuda:h100-sxm`), or a chip
                (`h100-sxm`).

        Raises:
            ConfigError: There is no such kind, device or chip.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{name!r} is not a kind of hardware. Allowed: {', '.join(KINDS)}.")
        kind, _, target = name.strip().partition(":")
        kind = kind.lower()
        if kind not in KINDS:
            return self._of_chip(name, kind, target)
        if target.lower() in self.specifications.by_slug:
            return self._absent(name, kind, self.specifications.get(target, kind), "")
        device = self._device(kind, target)
        here = self._known(kind, device if target else None)
        if here is not None:
            return self._of_known(name, kind, here)
        return self._stand_in(name, kind, device if target else None)

    def present(self) -> list[str]:
        """The ids of the devices of this machine that models run on."""
        return [each.device.id for each in self.known if each.is_present]

    def _of_chip(self, name: str, slug: str, target: str) -> Platform:
        if target or slug not in self.specifications.by_slug:
            raise ConfigError(
                f"{name!r} is not a kind of hardware. Allowed: {', '.join(KINDS)}.",
                hint="A chip that is not here is named after its kind, as in 'cuda:h100-sxm'. Known: "
                f"{', '.join(self.specifications.slugs())}.",
            )
        chip = self.specifications.get(slug)
        return self._absent(name, chip.kinds[0], chip, "")

    def _device(self, kind: str, target: str) -> Device | None:
        if kind == "qualcomm":
            return None
        try:
            return Device.parse(f"{kind}:{target}" if target else kind)
        except ConfigError as error:
            chips = self.specifications.slugs(kind)
            raise ConfigError(
                error.message, hint=f"Chips of this kind: {', '.join(chips)}." if chips else None
            ) from error

    def _known(self, kind: str, device: Device | None) -> KnownDevice | None:
        return next((each for each in self.known if each.device.kind == kind and device in (None, each.device)), None)

    def _of_known(self, name: str, kind: str, known: KnownDevice) -> Platform:
        chip, why = self._chip_of(kind, known)
        source = "this machine's" if known.is_present else "of its data sheet"
        memory = known.memory_bytes or (chip.memory_bytes if chip else None)
        return Platform(
            name=name,
            kind=kind,
            device=known.device.id,
            device_name=known.name,
            is_present=known.is_present,
            chip=chip,
            why_chip=why,
            memory_bytes=memory,
            memory_source=source if memory else "",
            presence=known.presence,
        )

    def _chip_of(self, kind: str, known: KnownDevice) -> tuple[DeviceSpecification | None, str]:
        """Return the data sheet of a known device; of a CPU that has none, the stand-in's with as many cores."""
        chip = self.specifications.of_driver(known.name, kind)
        why = "" if chip else f"which stands for {known.name or known.device.id}, whose own data sheet is not known"
        if chip is None and kind in self.specifications.defaults and (known.cores or kind not in ("cpu", "openvino")):
            chip = self._default(kind)[0]
        if chip is not None and chip.cores and known.cores:
            chip = chip.with_cores(known.cores)
        return chip, why if chip else ""

    def _stand_in(self, name: str, kind: str, device: Device | None) -> Platform:
        """Return the platform of a device that nothing is known of: the chip that stands for its kind, if any."""
        is_accelerator = kind == "openvino" and device is not None and device.target.partition(".")[0] != "CPU"
        if kind not in self.specifications.defaults or is_accelerator:
            return Platform(name, kind, device.id if device else kind)
        chip, why = self._default(kind)
        return self._absent(name, kind, chip, why)

    def _default(self, kind: str) -> tuple[DeviceSpecification, str]:
        slug = self.chosen.get(kind)
        why = "chosen in the configuration file" if slug else f"the default for {kind}"
        chip = self.specifications.get(slug or self.specifications.defaults[kind], kind)
        return chip, f"{why}; another one is named as '{kind}:<chip>'"

    def _absent(self, name: str, kind: str, chip: DeviceSpecification, why: str) -> Platform:
        return Platform(
            name=name,
            kind=kind,
            device=f"{kind}:{chip.slug}",
            chip=chip,
            why_chip=why,
            memory_bytes=chip.memory_bytes,
            memory_source="of its data sheet" if chip.memory_bytes else "",
        )
