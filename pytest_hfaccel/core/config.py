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

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import REGISTERED

WEIGHTS_CHOICES = ("auto", "pretrained", "random", "tiny")


LATEST_RUN = "latest"
"""The run that `--hf-resume` goes on with when it names none."""

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
    is_path: bool = False,
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
        is_path: Whether it names a file or a directory; `~` and `~user` are home directories.
        choices: The allowed values; any when empty.
    """
    metadata = {"help": text, "flag": flag, "env": env, "many": many, "split": split, "counts": counts}
    return field(default=default, metadata={**metadata, "bare": bare, "is_path": is_path, "choices": choices})


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
        "Registry file (YAML or JSON) that adds to or overrides the shipped one. May be repeated.",
        flag="--hf-registry",
        env="HFACCEL_REGISTRY",
        many=True,
        is_path=True,
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
        is_path=True,
    )
    resume: tuple[str, ...] = _option(
        (),
        "Go on with the latest run of the reports' directory, or with '=RUN' with another one (see `hfaccel runs`). "
        "Its finished cells are not run again, their outcomes count as they are. A cell is run again when something "
        "that decides its outcome has changed.",
        flag="--hf-resume",
        env="HFACCEL_RESUME",
        many=True,
        bare=LATEST_RUN,
    )
    retry: tuple[str, ...] = _option(
        (),
        "With --hf-resume: run the cells again that ended so: crashed, failed, error, ... Comma-separated or repeated.",
        flag="--hf-retry",
        env="HFACCEL_RETRY",
        many=True,
        split=True,
        choices=tuple(map(str, Status)),
    )
    reports: str = _option(
        "reports", "Directory for the reports of this run.", flag="--hf-reports", env="HFACCEL_REPORTS", is_path=True
    )
    reports_mode: str = _option(
        "600",
        "Permissions of the files that a run writes to its reports: they hold command lines and names of models.",
        flag="--hf-reports-mode",
        env="HFACCEL_REPORTS_MODE",
        choices=("600", "640", "644", "660", "664"),
    )
    keep_runs: int = _option(
        20,
        "How many runs keep their folder in the reports' directory, this one included; older ones are removed when it "
        "ends.",
        flag="--hf-keep-runs",
        env="HFACCEL_KEEP_RUNS",
        counts=True,
    )
    cache: str = _option(
        "",
        "Directory for built checkpoints and converted models (default: the user's cache directory).",
        flag="--hf-cache",
        env="HFACCEL_CACHE",
        is_path=True,
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
            return expand_path(self.cache, "--hf-cache").resolve()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(base).expanduser() / "pytest-hfaccel"

    @property
    def registry_files(self) -> list[Path]:
        """The user's registry files, later ones over earlier ones."""
        return [expand_path(path, "--hf-registry") for path in self.registries]

    @property
    def reports_dir(self) -> Path:
        """The directory for what a run leaves behind."""
        return expand_path(self.reports, "--hf-reports").resolve()

    @property
    def database_path(self) -> Path | None:
        """The database the run is written to; `None` for none.

        Without `--hf-database` that is `hfaccel.duckdb` in the working directory, where `hfaccel predict` looks for it,
        too - but only for runs that measure performance: any other run leaves no file that nobody asked for.
        """
        if self.database:
            is_none = self.database.lower() == NO_DATABASE
            return None if is_none else expand_path(self.database, "--hf-database").resolve()
        return Path("hfaccel.duckdb").resolve() if self.performance else None

    @classmethod
    def from_values(cls, values: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> RunConfig:
        """Build a configuration from parsed options, filling what is unset from the environment.

        Args:
            values: Option values by field name; `None` and missing mean "not given".
            environ: Environment to read instead of `os.environ`.

        Raises:
            ConfigError: A value is blank, or not among the allowed ones.
        """
        environ = os.environ if environ is None else environ
        out: dict[str, Any] = {}
        for option in fields(cls):
            given, place = values.get(option.name), option.metadata["flag"]
            if given is None and option.metadata["env"] in environ:
                place = option.metadata["env"]
                given = _from_text(environ[place], place, option.default, option.metadata["bare"])
            if given is not None:
                out[option.name] = _checked(given, place or option.name, option.metadata)
        return cls(**out)


def _checked(given: Any, place: str, metadata: Mapping[str, Any]) -> Any:
    """Return the value of an option as its field holds it.

    Args:
        given: What was given: texts where the option may be repeated.
        place: The flag, or the environment variable.
        metadata: What `_option` noted.
    """
    if metadata["many"]:
        given = tuple(dict.fromkeys(_parts(given, place, split=metadata["split"])))
    elif isinstance(given, str):
        given = _not_blank(given, given, place)
    if metadata["is_path"]:
        for text in given if metadata["many"] else (given,):
            expand_path(text, place)
    if metadata["counts"]:
        numbers = tuple(_count(str(text), place) for text in _values(given))
        given = numbers if metadata["many"] else numbers[0]
    for value in _values(given) if metadata["choices"] else ():
        if value not in metadata["choices"]:
            raise ConfigError(f"{place}: {value!r} is not allowed. Allowed: {', '.join(metadata['choices'])}.")
    return given


def expand_path(text: str, place: str) -> Path:
    """Return the path that a text names, `~` and `~user` being home directories.

    Raises:
        ConfigError: There is no such home directory; the message begins with `place`.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        user = text.partition("/")[0]
        raise ConfigError(f"{place}: {text}: there is no home directory {user}.") from error


_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _parts(given: Iterable[Any], place: str, *, split: bool) -> Iterator[str]:
    for item in given:
        for part in str(item).split(",") if split else [str(item)]:
            yield _not_blank(part.strip(), str(item), place)


def _values(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def _not_blank(text: str, given: str, place: str) -> str:
    """Refuse what is blank: the default would run instead of what somebody meant to name."""
    if text.strip():
        return text
    what = "is blank" if not given.strip() else f"{given!r} has a blank in it"
    raise ConfigError(
        f"{place}: {what}; perhaps a variable that is not set, in a shell or in CI.",
        hint=f"Give it a value, or leave {place} out for the default.",
    )


def _count(text: str, place: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            f"{place}: {text!r} is not allowed. Allowed: whole numbers of at least 1, as in '{place} 1,8'."
        )
    return int(text)


def _from_text(text: str, place: str, default: Any, bare: str) -> Any:
    """Read an environment variable as what the command line would have given."""
    switch = text.strip().lower()
    if isinstance(default, bool):
        if switch not in (*_YES, *_NO):
            _not_blank(text, text, place)
            raise ConfigError(f"{place}: {text!r} is not allowed. Allowed: {', '.join((*_YES, *_NO))}.")
        return switch in _YES
    if bare and switch in (*_YES, *_NO):
        return (bare,) if switch in _YES else ()
    if isinstance(default, tuple):
        return tuple(text.split(",")) if text.strip() else (text,)
    return text
