"""The configuration of a run: every option declared once.

`plugin/options.py` derives the pytest options and `cli/` its arguments from the fields below; nobody else reads an
option. A field with `flag` is a command-line option; every field can be set by its environment variable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.spec import REGISTERED

WEIGHTS_CHOICES = ("auto", "pretrained", "random", "tiny")


NO_DATABASE = "none"
"""The value of `--hf-database` that keeps a run out of the database."""


def _option(
    default: Any,
    text: str,
    *,
    flag: str = "",
    env: str = "",
    many: bool = False,
    split: bool = False,
    counts: bool = False,
    bare: str = "",
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare an option.

    Args:
        default: Its value when it is not given.
        text: Its help text.
        flag: Its name on the command line; empty where it has none.
        env: Its environment variable.
        many: Whether it may be repeated.
        split: Whether a value may also be a list, separated by commas.
        counts: Whether its values are whole numbers of at least 1.
        bare: What it means when it is given without a value; empty where it needs one.
        choices: The allowed values; any when empty.
    """
    metadata = {"help": text, "flag": flag, "env": env, "many": many, "split": split, "counts": counts}
    return field(default=default, metadata={**metadata, "bare": bare, "choices": choices})


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
        split=True,
    )
    dtypes: tuple[str, ...] = _option(
        (),
        "Precision to test at: fp32, bf16, fp16, int8. Comma-separated or repeated.",
        flag="--hf-dtype",
        env="HFACCEL_DTYPE",
        many=True,
        split=True,
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
        split=True,
    )
    performance: bool = _option(
        False, "Also measure latency and throughput of each cell.", flag="--hf-performance", env="HFACCEL_PERFORMANCE"
    )
    batch_sizes: tuple[int, ...] = _option(
        (),
        "With --hf-performance: batch sizes to measure at (default: 1). Comma-separated or repeated.",
        flag="--hf-batch-sizes",
        env="HFACCEL_BATCH_SIZES",
        many=True,
        split=True,
        counts=True,
    )
    seq_lengths: tuple[int, ...] = _option(
        (),
        "With --hf-performance: tokens per sample to measure at (default: as many as the sample inputs have). "
        "Comma-separated or repeated.",
        flag="--hf-seq-lengths",
        env="HFACCEL_SEQ_LENGTHS",
        many=True,
        split=True,
        counts=True,
    )
    database: str = _option(
        "",
        "Benchmark database the run is written to, or 'none' (default: hfaccel.duckdb in the working directory when "
        "performance is measured, else none).",
        flag="--hf-database",
        env="BENCHMARK_DB_PATH",
    )
    resume: bool = _option(
        False,
        "Go on with the run whose journal is in the reports' directory: its finished checks are not run again, their "
        "outcomes count as they are.",
        flag="--hf-resume",
        env="HFACCEL_RESUME",
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
    trust_remote_code: tuple[str, ...] = _option(
        (),
        "Run the code of a model's repository: of models whose entry in your registry says that they need it; with "
        "'=X', of the model with exactly this id or path. May be repeated.",
        flag="--hf-trust-remote-code",
        env="HFACCEL_TRUST_REMOTE_CODE",
        many=True,
        bare=REGISTERED,
    )
    allow_pickle: bool = _option(
        False, "Also load weights that are not safetensors; unpickling runs code.", env="HFACCEL_ALLOW_PICKLE"
    )
    training: bool = _option(
        False,
        "Also train each cell for one step: loss, gradients, gradient checkpointing.",
        flag="--hf-training",
        env="HFACCEL_TRAINING",
    )
    attention: bool = _option(
        False,
        "Also compare the implementations of attention: eager, sdpa, flash and flex where they run.",
        flag="--hf-attention",
        env="HFACCEL_ATTENTION",
    )
    compile: bool = _option(
        False,
        "Also compare the model with torch.compile, by inductor and by OpenVINO where they are.",
        flag="--hf-compile",
        env="HFACCEL_COMPILE",
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

    @property
    def database_path(self) -> Path | None:
        """The database the run is written to; `None` for none.

        Without `--hf-database` that is `hfaccel.duckdb` in the working directory, where `hfaccel predict` looks for it,
        too - but only for runs that measure performance: any other run leaves no file that nobody asked for.
        """
        if self.database:
            return None if self.database == NO_DATABASE else Path(self.database).expanduser().resolve()
        return Path("hfaccel.duckdb").resolve() if self.performance else None

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
                given = _from_text(environ[option.metadata["env"]], option.default, option.metadata["bare"])
            if given is None:
                continue
            if option.metadata["many"]:
                given = tuple(_parts(given, split=option.metadata["split"]))
            if option.metadata["counts"]:
                given = tuple(_count(text, option.metadata["flag"]) for text in given)
            choices = option.metadata["choices"]
            if choices and given not in choices:
                raise ConfigError(
                    f"{option.metadata['flag']}: {given!r} is not allowed. Allowed: {', '.join(choices)}."
                )
            out[option.name] = given
        return cls(**out)


_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _parts(given: Iterable[Any], *, split: bool) -> Iterator[str]:
    for item in given:
        parts = str(item).split(",") if split else [str(item)]
        yield from (part.strip() for part in parts if part.strip())


def _count(text: str, flag: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{flag}: {text!r} is not allowed. Allowed: whole numbers of at least 1, as in '{flag} 1,8'.")
    return int(text)


def _from_text(text: str, default: Any, bare: str) -> Any:
    if isinstance(default, bool):
        return text.strip().lower() in _YES
    if bare and text.strip().lower() in (*_YES, *_NO):
        return (bare,) if text.strip().lower() in _YES else ()
    if isinstance(default, tuple):
        return tuple(text.split(","))
    return text
