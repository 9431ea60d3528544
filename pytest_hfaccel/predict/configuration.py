"""The configuration file of the predictor (JSON or YAML)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from pytest_hfaccel.core.errors import ConfigError

MODES = ("inference", "training")

WEIGHTS = {
    "inference": {"latency": 0.4, "throughput": 0.3, "memory": 0.2, "compatibility": 0.1},
    "training": {"throughput": 0.4, "convergence": 0.3, "memory": 0.2, "compatibility": 0.1},
}
"""What counts how much in a recommendation, by mode; the guide's."""

_WANTED = {
    "devices": 'kinds of device with a chip each, as in {"cuda": "h100-sxm"}',
    "hardware": 'a list of names, as in ["cuda", "cpu"]',
    "weights": f"weights by mode ({', '.join(MODES)}), each a number, 0 or more, by name",
    "threads": "a whole number, 1 or more",
    "store_predictions": "true or false",
    "network_gb_per_second": "a number above 0",
    "devices_per_machine": "a whole number, 1 or more",
    **dict.fromkeys(("models_dir", "cache_dir", "reports"), "a directory"),
}


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

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    devices: Mapping[str, str] = field(default_factory=dict)
    hardware: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, Annotated[float, Ge(0)]]] = field(default_factory=lambda: WEIGHTS)
    threads: Annotated[int, Ge(1)] | None = None
    models_dir: str = ""
    store_predictions: bool = True
    network_gb_per_second: Annotated[float, Gt(0)] = 50.0
    devices_per_machine: Annotated[int, Ge(1)] = 8
    cache_dir: str = ""
    reports: str = ""

    @classmethod
    def read(cls, path: Path) -> PredictorConfig:
        """Read a configuration file.

        Raises:
            ConfigError: It cannot be read, or holds mistakes; the message lists all of them.
        """
        import yaml

        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: is neither JSON nor YAML: {error}") from error
        problems = _problems(data) if isinstance(data, dict) else ["must be an object with keys."]
        if problems:
            raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
        if "hardware" in data:
            data["hardware"] = tuple(data["hardware"])
        weights = {mode: {**WEIGHTS[mode], **said} for mode, said in data.pop("weights", {}).items()}
        return cls(weights={**WEIGHTS, **weights}, **data)


def _problems(data: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the content of a file; a key once, however many of its items are wrong."""
    from pydantic import TypeAdapter, ValidationError

    found: dict[str, str] = {}
    try:
        TypeAdapter(PredictorConfig).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        for each in error.errors():
            key = str(each["loc"][0])
            place = ".".join(map(str, each["loc"])) if key == "weights" else key
            known = [one.name for one in fields(PredictorConfig)]
            value = each["input"] if key == "weights" else data[key]
            wrong = f"{place}: {value!r} is not allowed. Wanted: {_WANTED.get(key)}."
            found[place] = _unknown(place, known) if key not in known else wrong
    weights = data.get("weights")
    for mode, said in weights.items() if isinstance(weights, dict) else ():
        if mode not in WEIGHTS:
            found[f"weights.{mode}"] = _unknown(str(mode), WEIGHTS, "weights.")
        for name in said if isinstance(said, dict) and mode in WEIGHTS else ():
            if name not in WEIGHTS[mode]:
                found[f"weights.{mode}.{name}"] = _unknown(str(name), WEIGHTS[mode], f"weights.{mode}.")
    return list(found.values())


def _unknown(key: str, known: Collection[str], place: str = "") -> str:
    near = get_close_matches(key, known, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"{place}{key}: there is no such key.{suggestion} Allowed: {', '.join(sorted(known))}."
