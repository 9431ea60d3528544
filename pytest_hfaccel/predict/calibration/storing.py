"""Calibrations on disk: one file per device, dtype, threads and versions, so that an upgrade asks for a new one."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.predict.calibration.records import DeviceCalibration

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
            f"{file}: the calibration cannot be kept: {error.strerror}",
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
