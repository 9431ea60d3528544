"""What a calibration is - the measured times of single operators on one device - and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file

FORMAT = 2
"""Raised when a change makes stored calibrations useless."""

QUIET = 0.10
"""Work that varies by more than this share is disturbed by others: busy machines' calibrations were 10 to 20 % off."""


def disturbance_of(noise: Mapping[str, float]) -> float:
    """Return how much a machine was disturbed by `DeviceCalibration.noise`, as a share of the times."""
    return max(noise.get("spread", 0.0), abs(noise.get("drift", 0.0)), noise.get("loop_spread", 0.0))


@dataclass(frozen=True)
class TimedOperator:
    """One operator at one size.

    Attributes:
        kind: `linear`, `bmm`, `attention`, `conv`, `depthwise`, or the name of an operator that moves numbers.
        size: `linear`, `conv`: rows M, columns N, depth K of the matrix product it is. `bmm`: M, N, K, matrices.
            `attention`: queries, width of a head, heads x batch. `depthwise`: rows, window. Others: numbers written.
        seconds: Median time.
        flops: Floating-point operations, 0 for what only moves numbers.
        moved_bytes: Bytes read and written.
    """

    kind: str
    size: tuple[int, ...]
    seconds: float
    flops: int = 0
    moved_bytes: int = 0


@dataclass(frozen=True)
class DeviceCalibration:
    """How fast a device is at the operators that models are made of.

    Attributes:
        device: Device id.
        device_name: The chip.
        dtype: The precision it was measured at.
        threads: CPU threads of the runtime.
        taken: When, ISO 8601.
        seconds: How long it took.
        versions: Versions of the runtime, by package.
        call_seconds: Time of a call that computes next to nothing: what the runtime adds to every forward pass.
        view_seconds: Time of an operator that only returns a view.
        module_seconds: What a Python module adds to the operator in it.
        operators: The measured operators.
        noise: What the machine did meanwhile, as shares: `spread` (how far operators' medians are above their fastest
            runs, over all operators), `drift` (how much slower a fixed loop was afterwards) and `loop_spread` (its
            quartiles' distance); and `passes`, how often everything was measured. Empty in old calibrations.
        details: What else is known of the device, JSON values. Of browsers: `browser`, `implementation` (`emulated`
            where a software adapter computes), `adapter`, and `left_out`, the operators that would have taken too long.
    """

    device: str
    device_name: str
    dtype: str
    threads: int
    taken: str
    seconds: float
    versions: dict[str, str]
    call_seconds: float
    view_seconds: float
    module_seconds: float
    operators: tuple[TimedOperator, ...]
    noise: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def disturbance(self) -> float:
        """How much the machine was disturbed while this was taken, as a share of the times."""
        return disturbance_of(self.noise)

    @property
    def problem(self) -> str:
        """What is wrong with it, a sentence; empty for one that was taken on a quiet machine."""
        if self.disturbance <= QUIET:
            return ""
        return (
            f"{self.device} at {self.dtype} was calibrated on a busy machine (the same work varied by "
            f"{self.disturbance:.0%}), so its predictions are that much less certain; `hfaccel calibrate --device "
            f"{self.device} --dtype {self.dtype}` again when the machine is quiet"
        )

    @property
    def kind(self) -> str:
        """The kind of device."""
        return kind_of(self.device)

    @property
    def peak_flops(self) -> float:
        """Most floating-point operations per second that any measured operator reached."""
        return max(one.flops / one.seconds for one in self.operators)

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the largest copy: main memory's, not a cache's."""
        copies = [one for one in self.operators if one.kind == "copy"]
        largest = max(copies, key=lambda one: one.moved_bytes)
        return largest.moved_bytes / largest.seconds

    def of_kind(self, *kinds: str) -> list[TimedOperator]:
        """The measured operators of some kinds."""
        return [one for one in self.operators if one.kind in kinds]

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DeviceCalibration:
        """Rebuild a calibration from what `to_json` returned.

        Raises:
            ValueError: It was written by another version of this format.
        """
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise ValueError(f"calibration of format {found!r}, expected {FORMAT}")
        fields = {name: value for name, value in data.items() if name != "format"}
        operators = tuple(TimedOperator(**{**one, "size": tuple(one["size"])}) for one in data["operators"])
        return cls(**{**fields, "operators": operators})


_FOLDER = "calibrations"


def save_calibration(calibration: DeviceCalibration, cache_dir: Path) -> Path:
    """Keep a calibration; an earlier one of the same device, dtype, threads and versions is replaced.

    Raises:
        ConfigError: The directory cannot be written.
    """
    file = cache_dir / _FOLDER / f"{_key(calibration)}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(calibration.to_json(), indent=1))
    except OSError as error:
        raise ConfigError(
            f"{file}: the calibration cannot be stored: {error.strerror}",
            hint="Free space or change the permissions, or choose another directory with HFACCEL_CACHE.",
        ) from error
    return file


def load_calibrations(cache_dir: Path) -> list[DeviceCalibration]:
    """Return the calibrations that were kept, the newest first; files that are damaged or of another format are not."""
    found = []
    for file in (cache_dir / _FOLDER).glob("*.json"):
        try:
            found.append(DeviceCalibration.from_json(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # what cannot be read is measured again
    return sorted(found, key=lambda calibration: calibration.taken, reverse=True)


def _key(calibration: DeviceCalibration) -> str:
    rest = json.dumps([calibration.device_name, calibration.versions], sort_keys=True)
    device = calibration.device.replace(":", "")
    return f"{device}-{calibration.dtype}-{calibration.threads}-{sha256(rest.encode()).hexdigest()[:12]}"
