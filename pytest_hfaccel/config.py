"""The configuration of a run: every option declared once.

`plugin/options.py` derives the pytest options and `cli/` its arguments from the fields below; nobody else reads an
option. A field with `flag` is a command-line option; every field can be set by its environment variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_hfaccel.errors import ConfigError

WEIGHTS_CHOICES = ("auto", "pretrained", "random", "tiny")


def _option(
    default: Any, text: str, *, flag: str = "", env: str = "", many: bool = False, choices: tuple[str, ...] = ()
) -> Any:
    metadata = {"help": text, "flag": flag, "env": env, "many": many, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunConfig:
    """What the user asked for. Every value is plain data, so that a controller can hand it to its workers."""

    all_models: bool = _option(
        False,
        "Test every registered model of each selected class module.",
        flag="--all-models",
        env="HFACCEL_ALL_MODELS",
    )
    all_hardware: bool = _option(
        False, "Test on every device found on this machine.", flag="--all-hardware", env="HFACCEL_ALL_HARDWARE"
    )
    models: tuple[str, ...] = _option(
        (),
        "Model to test: registry name, wildcard ('bert*'), hub id or local directory. May be repeated.",
        flag="--hf-model",
        env="HFACCEL_MODEL",
        many=True,
    )
    devices: tuple[str, ...] = _option(
        (),
        "Device to test on: cpu, cuda:0, mps, openvino:CPU, ... Comma-separated or repeated.",
        flag="--hf-device",
        env="HFACCEL_DEVICE",
        many=True,
    )
    dtypes: tuple[str, ...] = _option(
        (),
        "Precision to test at: fp32, bf16, fp16, int8. Comma-separated or repeated.",
        flag="--hf-dtype",
        env="HFACCEL_DTYPE",
        many=True,
    )
    weights: str = _option(
        "auto",
        "Weights to test with: pretrained, random (real dimensions), tiny (shrunken), or auto: pretrained where they "
        "are on this machine or the model was named and the hub answers, else tiny.",
        flag="--hf-weights",
        env="HFACCEL_WEIGHTS",
        choices=WEIGHTS_CHOICES,
    )
    registries: tuple[str, ...] = _option(
        (),
        "Registry file (YAML) that adds to or overrides the shipped one. May be repeated.",
        flag="--hf-registry",
        env="HFACCEL_REGISTRY",
        many=True,
    )
    require: tuple[str, ...] = _option(
        (),
        "Device that must be there: its absence fails the run instead of being reported.",
        flag="--hf-require",
        env="HFACCEL_REQUIRE",
        many=True,
    )
    performance: bool = _option(
        False, "Also measure latency and throughput of each cell.", flag="--hf-performance", env="HFACCEL_PERFORMANCE"
    )
    reports: str = _option(
        "reports", "Directory for the reports of this run.", flag="--hf-reports", env="HFACCEL_REPORTS"
    )
    cache: str = _option(
        "",
        "Directory for built checkpoints and converted models (default: the user's cache directory).",
        flag="--hf-cache",
        env="HFACCEL_CACHE",
    )
    trust_remote_code: bool = _option(
        False,
        "Run the code of a model's repository, for models whose registry entry says they need it.",
        flag="--hf-trust-remote-code",
        env="HFACCEL_TRUST_REMOTE_CODE",
    )
    allow_pickle: bool = _option(
        False, "Also load weights that are not safetensors; unpickling runs code.", env="HFACCEL_ALLOW_PICKLE"
    )
    pool_memory: str = _option(
        "",
        "Memory budget of the pool per device, as '8GiB' or as a share of what is free ('50%'; the default is 70%).",
        env="HFACCEL_POOL_MEMORY",
    )

    @property
    def cache_dir(self) -> Path:
        """The directory for what can be rebuilt: `--hf-cache`, else under the user's cache directory."""
        if self.cache:
            return Path(self.cache).expanduser().resolve()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(base).expanduser() / "pytest-hfaccel"

    @property
    def reports_dir(self) -> Path:
        """The directory for what a run leaves behind."""
        return Path(self.reports).expanduser().resolve()

    @classmethod
    def from_values(cls, values: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> RunConfig:
        """Build a configuration from parsed options, filling what is unset from the environment.

        Args:
            values: Option values by field name; `None` and missing mean "not given".
            environ: Environment to read instead of `os.environ`.

        Raises:
            ConfigError: A value is not among the allowed ones.
        """
        environ = os.environ if environ is None else environ
        out: dict[str, Any] = {}
        for option in fields(cls):
            given = values.get(option.name)
            if given is None and environ.get(option.metadata["env"]):
                given = _from_text(environ[option.metadata["env"]], option.default)
            if given is None:
                continue
            if option.metadata["many"]:
                split = option.name in ("devices", "dtypes", "require")
                given = tuple(
                    part.strip() for item in given for part in (item.split(",") if split else [item]) if part.strip()
                )
            choices = option.metadata["choices"]
            if choices and given not in choices:
                raise ConfigError(
                    f"{option.metadata['flag']}: {given!r} is not allowed. Allowed: {', '.join(choices)}."
                )
            out[option.name] = given
        return cls(**out)


def _from_text(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return text.strip().lower() in ("1", "true", "yes", "on")
    if isinstance(default, tuple):
        return tuple(text.split(","))
    return text
