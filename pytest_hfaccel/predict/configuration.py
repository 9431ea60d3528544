"""The configuration file of the predictor (JSON or YAML)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

MODES = ("inference", "training")

WEIGHTS = {
    "inference": {"latency": 0.4, "throughput": 0.3, "memory": 0.2, "compatibility": 0.1},
    "training": {"throughput": 0.4, "convergence": 0.3, "memory": 0.2, "compatibility": 0.1},
}
"""What counts how much in a recommendation, by mode; the guide's."""


@dataclass(frozen=True)
class PredictorConfig:
    """What a configuration file can say; every key may be absent.

    Attributes:
        devices: Which chip stands for a kind of device that is not here: `{"cuda": "h100-sxm"}`.
        hardware: The hardware to consider when a call names none; the devices of this machine by default.
        weights: What counts how much in a recommendation, by mode; in the form of `WEIGHTS`.
        threads: CPU threads of the runs that are predicted; all cores this process may use by default.
        models_dir: Directory with trained prediction models.
        store_predictions: Whether predictions are kept in the database, to be compared with what is measured.
        network_gb_per_second: Bandwidth between machines per device and direction, for more devices than a machine
            has; by default that of a DGX H100 (eight cards of 400 Gbit/s for eight devices, says its data sheet).
        devices_per_machine: How many devices the links inside a machine connect.
        cache_dir: Where traces and calibrations are kept.
        reports: Directory with the reports of earlier runs, for what is known of support.
    """

    devices: Mapping[str, str] = field(default_factory=dict)
    hardware: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: WEIGHTS)
    threads: int | None = None
    models_dir: str = ""
    store_predictions: bool = True
    network_gb_per_second: float = 50.0
    devices_per_machine: int = 8
    cache_dir: str = ""
    reports: str = ""

    @classmethod
    def read(cls, path: Path) -> PredictorConfig:
        """Read a configuration file.

        Raises:
            ConfigError: It cannot be read, or holds mistakes; all of them are told.
        """
        import yaml

        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: is neither JSON nor YAML: {error}") from error
        problems = _problems(data)
        if problems:
            raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
        if "hardware" in data:
            data["hardware"] = tuple(data["hardware"])
        weights = {mode: {**WEIGHTS[mode], **given} for mode, given in data.pop("weights", {}).items()}
        return cls(weights={**WEIGHTS, **weights}, **data)


def _problems(data: Any) -> list[str]:
    if not isinstance(data, dict):
        return ["must be an object with keys."]
    known = {each.name for each in fields(PredictorConfig)}
    found = [_unknown(str(key), known) for key in data if key not in known]
    found += [
        f"{key}: {data[key]!r} is not allowed. Wanted: {wanted}."
        for key, (is_right, wanted) in _VALUES.items()
        if key in data and not is_right(data[key])
    ]
    return found + _weight_problems(data.get("weights", {}))


def _weight_problems(weights: Any) -> list[str]:
    if not isinstance(weights, dict):
        return [f"weights: {weights!r} is not allowed. Wanted: weights by mode ({', '.join(MODES)})."]
    found = []
    for mode, given in weights.items():
        if mode not in WEIGHTS:
            found.append(_unknown(str(mode), set(WEIGHTS), "weights."))
        elif not isinstance(given, dict):
            found.append(f"weights.{mode}: {given!r} is not allowed. Wanted: numbers by name.")
        else:
            found += [_unknown(name, set(WEIGHTS[mode]), f"weights.{mode}.") for name in given.keys() - WEIGHTS[mode]]
            found += [
                f"weights.{mode}.{name}: {value!r} is not allowed. Wanted: a number, 0 or more."
                for name, value in given.items()
                if name in WEIGHTS[mode] and not (_is_number(value) and value >= 0)
            ]
    return found


def _unknown(key: str, known: set[str], place: str = "") -> str:
    near = get_close_matches(key, known, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"{place}{key}: there is no such key.{suggestion} Allowed: {', '.join(sorted(known))}."


def _of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "devices": (_of_texts, 'kinds of device with a chip each, as in {"cuda": "h100-sxm"}'),
    "hardware": (_is_texts, 'a list of names, as in ["cuda", "cpu"]'),
    "threads": (_is_count, "a whole number, 1 or more"),
    "store_predictions": (lambda value: isinstance(value, bool), "true or false"),
    "network_gb_per_second": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "devices_per_machine": (_is_count, "a whole number, 1 or more"),
    **{name: (lambda value: isinstance(value, str), "a directory") for name in ("models_dir", "cache_dir", "reports")},
}
"""Key -> whether a value is allowed, and what is."""
