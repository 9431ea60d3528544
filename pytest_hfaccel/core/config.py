"""The configuration of a run: every option declared once, with its type, its spellings and where its value came from.

`plugin/options.py` derives pytest's options and ini settings from `RunConfig.options()`, `cli/` its arguments; nobody
else reads an option. pytest imports this module at every start: it imports nothing that can wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from pytest_hfaccel.core.errors import ConfigError

T = TypeVar("T")

WEIGHTS_CHOICES = ("auto", "pretrained", "random", "tiny")

LATEST_RUN = "latest"
"""The run that `--hf-resume` resumes when it names none."""

NO_DATABASE = "none"
"""The value of `--hf-database` that keeps a run out of the database."""

REGISTERED = "registered"
"""The consent to remote code that covers the models whose registry entry says `requires_remote_code`."""

DEFAULT = "default"
"""The source of a value that the user did not set."""

STATUSES = (
    *("passed", "failed", "xfailed", "xpassed", "skipped", "error", "crashed", "timeout", "out_of_memory"),
    *("unavailable", "gated", "hub_error", "incomplete"),
)
"""The members of `core.results.Status`, which is not imported here."""


class Option(Generic[T]):
    """One field of `RunConfig`; read on an instance it is the value.

    Attributes:
        name: The field's name.
        default: The value if the user sets none.
        help: Its help text.
        flag: Its name on the command line; empty where it has none.
        env: Its environment variable.
        ini: Its name in pytest's configuration file: the flag's, with underscores.
        many: Whether it may be repeated.
        split: Whether a value may also be a list, separated by commas.
        counts: Whether its values are whole numbers of at least 1.
        bare: What it means when it is given without a value; empty where it needs one.
        is_path: Whether it names a file or a directory; `~` and `~user` are home directories.
        choices: The allowed values; any when empty.
        old_flag: The flag's spelling in the release before; it works, with a warning.
        old_env: The variable's name in the release before; it works, with a warning.
    """

    def __init__(
        self,
        default: T,
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
        old_flag: str = "",
        old_env: str = "",
    ) -> None:
        self.name = ""
        self.default = default
        self.help = text
        self.flag = flag
        self.env = env
        self.ini = flag.lstrip("-").replace("-", "_")
        self.many = many
        self.split = split
        self.counts = counts
        self.bare = bare
        self.is_path = is_path
        self.choices = choices
        self.old_flag = old_flag
        self.old_env = old_env

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Option[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Option[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.get(self.name, self.default)
        return value

    def __set__(self, instance: object, value: T) -> None:
        raise AttributeError(f"{self.name} cannot be changed; use `RunConfig.replace`.")

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return isinstance(self.default, bool)


_NOTHING: Any = ()
"""The default of options that may be repeated, whose type it does not tell."""


class RunConfig:
    """What the user asked for. Every value is plain data, so that a controller can hand it to its workers."""

    all_models = Option(
        False,
        "Test every registered model of each selected class module.",
        flag="--all-models",
        env="HFACCEL_ALL_MODELS",
    )
    all_hardware = Option(
        False, "Test on every device found on this machine.", flag="--all-hardware", env="HFACCEL_ALL_HARDWARE"
    )
    models: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Model to test: registry name, wildcard ('bert*'), hub id or local directory. May be repeated.",
        flag="--hf-model",
        env="HFACCEL_MODEL",
        many=True,
    )
    devices: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Device to test on: cpu, cuda:0, mps, openvino:CPU, ... Comma-separated or repeated.",
        flag="--hf-device",
        env="HFACCEL_DEVICE",
        many=True,
        split=True,
    )
    dtypes: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Precision to test at: fp32, bf16, fp16, int8. Comma-separated or repeated.",
        flag="--hf-dtype",
        env="HFACCEL_DTYPE",
        many=True,
        split=True,
    )
    weights = Option(
        "auto",
        "Weights to test with: pretrained, random (real dimensions), tiny (shrunken), or auto: pretrained if they "
        "are on this machine, or if the model was named and the hub answers; otherwise tiny.",
        flag="--hf-weights",
        env="HFACCEL_WEIGHTS",
        choices=WEIGHTS_CHOICES,
    )
    registries: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Registry file (YAML or JSON) that adds to or overrides the shipped one. May be repeated.",
        flag="--hf-registry",
        env="HFACCEL_REGISTRY",
        many=True,
        is_path=True,
    )
    require: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Device that must be present: its absence fails the run.",
        flag="--hf-require-device",
        old_flag="--hf-require",
        env="HFACCEL_REQUIRE_DEVICE",
        old_env="HFACCEL_REQUIRE",
        many=True,
        split=True,
    )
    performance = Option(
        False, "Also measure latency and throughput of each cell.", flag="--hf-performance", env="HFACCEL_PERFORMANCE"
    )
    batch_sizes: Option[tuple[int, ...]] = Option(
        _NOTHING,
        "With --hf-performance: batch sizes to measure at (default: 1). Comma-separated or repeated.",
        flag="--hf-performance-batch-sizes",
        old_flag="--hf-batch-sizes",
        env="HFACCEL_PERFORMANCE_BATCH_SIZES",
        old_env="HFACCEL_BATCH_SIZES",
        many=True,
        split=True,
        counts=True,
    )
    seq_lengths: Option[tuple[int, ...]] = Option(
        _NOTHING,
        "With --hf-performance: tokens per sample to measure at (default: as many as the sample inputs have). "
        "Comma-separated or repeated.",
        flag="--hf-performance-seq-lengths",
        old_flag="--hf-seq-lengths",
        env="HFACCEL_PERFORMANCE_SEQ_LENGTHS",
        old_env="HFACCEL_SEQ_LENGTHS",
        many=True,
        split=True,
        counts=True,
    )
    database = Option(
        "",
        "Benchmark database the run is written to, or 'none' (default: hfaccel.duckdb in the working directory when "
        "performance is measured, else none).",
        flag="--hf-database",
        env="BENCHMARK_DB_PATH",
        is_path=True,
    )
    resume: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Continue the latest run of the reports directory, or, with '=RUN', another one (see `hfaccel runs`). "
        "Its finished cells are not run again and keep their outcomes. A cell is run again when something "
        "that decides its outcome has changed.",
        flag="--hf-resume",
        env="HFACCEL_RESUME",
        many=True,
        bare=LATEST_RUN,
    )
    retry: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "With --hf-resume: run cells with this status again: crashed, failed, error, ... Comma-separated or repeated.",
        flag="--hf-resume-retry",
        old_flag="--hf-retry",
        env="HFACCEL_RESUME_RETRY",
        old_env="HFACCEL_RETRY",
        many=True,
        split=True,
        choices=STATUSES,
    )
    reports = Option(
        "reports", "Directory for the reports of this run.", flag="--hf-reports", env="HFACCEL_REPORTS", is_path=True
    )
    reports_mode = Option(
        "600",
        "Permissions of the report files, which contain command lines and model names.",
        flag="--hf-reports-mode",
        env="HFACCEL_REPORTS_MODE",
        choices=("600", "640", "644", "660", "664"),
    )
    keep_runs = Option(
        20,
        "How many run folders to keep in the reports directory, including this run's; older ones are removed when it "
        "ends.",
        flag="--hf-reports-keep",
        old_flag="--hf-keep-runs",
        env="HFACCEL_REPORTS_KEEP",
        old_env="HFACCEL_KEEP_RUNS",
        counts=True,
    )
    cache = Option(
        "",
        "Directory for built checkpoints and converted models (default: the user's cache directory).",
        flag="--hf-cache",
        env="HFACCEL_CACHE",
        is_path=True,
    )
    trust_remote_code: Option[tuple[str, ...]] = Option(
        _NOTHING,
        "Run the Python code in a model's repository, if the model's entry in your registry says that it needs it; "
        "with '=X', for the model with exactly this id or path. May be repeated.",
        flag="--hf-trust-remote-code",
        env="HFACCEL_TRUST_REMOTE_CODE",
        many=True,
        bare=REGISTERED,
    )
    allow_pickle = Option(
        False, "Also load weights that are not safetensors; unpickling runs code.", env="HFACCEL_ALLOW_PICKLE"
    )
    training = Option(
        False,
        "Also train each cell for one step: loss, gradients, gradient checkpointing.",
        flag="--hf-training",
        env="HFACCEL_TRAINING",
    )
    attention = Option(
        False,
        "Also compare the implementations of attention that run here: eager, sdpa, flash and flex.",
        flag="--hf-attention",
        env="HFACCEL_ATTENTION",
    )
    compile = Option(
        False,
        "Also compare the model with its torch.compile'd form, by inductor and OpenVINO if they are installed.",
        flag="--hf-compile",
        env="HFACCEL_COMPILE",
    )
    pool_memory = Option(
        "",
        "Memory budget of the pool per device, as '8GiB' or as a share of what is free ('50%'; the default is 70%).",
        env="HFACCEL_POOL_MEMORY",
    )

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - {option.name for option in self.options()}
        if unknown:
            raise TypeError(f"RunConfig has no {', '.join(sorted(unknown))}")
        self.__dict__.update(values)
        self.__dict__["_sources"] = {}

    @classmethod
    def options(cls) -> list[Option[Any]]:
        """The options, in the order in which help shows them."""
        return [option for option in vars(cls).values() if isinstance(option, Option)]

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return {option.name: getattr(self, option.name) for option in self.options()}

    def replace(self, **changes: Any) -> RunConfig:
        """Return a configuration with some values changed."""
        changed = RunConfig(**{**self.to_json(), **changes})
        changed.__dict__["_sources"] = dict(self._sources)
        return changed

    def source_of(self, name: str) -> str:
        """Where a value came from: `--hf-device`, `HFACCEL_DEVICE`, `hf_device` (ini), or `default`."""
        return self._sources.get(name, DEFAULT)

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody asked for anything, be it the default itself."""
        return bool(self._sources)

    @property
    def _sources(self) -> dict[str, str]:
        sources: dict[str, str] = self.__dict__["_sources"]
        return sources

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be changed; use `RunConfig.replace`.")

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, RunConfig) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.to_json().values()))

    def __repr__(self) -> str:
        asked = {name: value for name, value in self.__dict__.items() if name != "_sources"}
        return f"RunConfig({', '.join(f'{name}={value!r}' for name, value in asked.items())})"

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
        too - but only for runs that measure performance: any other run writes no file without being asked to.
        """
        if self.database:
            is_none = self.database.lower() == NO_DATABASE
            return None if is_none else expand_path(self.database, "--hf-database").resolve()
        return Path("hfaccel.duckdb").resolve() if self.performance else None

    @classmethod
    def from_values(
        cls,
        values: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        *,
        ini: Callable[[Option[Any]], str | None] = lambda _: None,
        warn: Callable[[str], object] | None = None,
    ) -> RunConfig:
        """Build a configuration: from parsed options, else the environment, else a configuration file.

        Args:
            values: Option values by field name; `None` and missing mean "not set".
            environ: Environment to read instead of `os.environ`.
            ini: Returns what the configuration file says of an option, as a variable would; `None` for nothing.
            warn: Called for variables with an old name; by default a `DeprecationWarning`.

        Raises:
            ConfigError: A value is blank, or not among the allowed ones.
        """
        environ = os.environ if environ is None else environ
        out: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for option in cls.options():
            value, place = values.get(option.name), option.flag or option.name
            if value is None:
                text, place = _from_elsewhere(option, environ, ini, warn or _deprecate)
                if text is not None:
                    value = _from_text(text, place, option.default, option.bare)
            if value is not None:
                out[option.name] = _checked(value, place, option)
                sources[option.name] = place
        config = cls(**out)
        config.__dict__["_sources"] = sources
        return config


def _from_elsewhere(
    option: Option[Any],
    environ: Mapping[str, str],
    ini: Callable[[Option[Any]], str | None],
    warn: Callable[[str], object],
) -> tuple[str | None, str]:
    """Return what the environment or the configuration file says of an option, and where it stands."""
    if option.env in environ:
        return environ[option.env], option.env
    if option.old_env and option.old_env in environ:
        warn(f"The environment variable {option.old_env} is now called {option.env}.")
        return environ[option.old_env], option.old_env
    return (ini(option), option.ini) if option.flag else (None, "")


def _deprecate(text: str) -> None:
    import warnings

    warnings.warn(text, DeprecationWarning, stacklevel=4)


def _checked(given: Any, place: str, option: Option[Any]) -> Any:
    """Return the value of an option as its field holds it.

    Args:
        given: What was given: texts where the option may be repeated.
        place: The flag, the environment variable, or the name in the configuration file.
        option: The option.
    """
    if option.many:
        given = tuple(dict.fromkeys(_parts(given, place, split=option.split)))
    elif isinstance(given, str):
        given = _not_blank(given, given, place)
    if option.is_path:
        for text in given if option.many else (given,):
            expand_path(text, place)
    if option.counts:
        numbers = tuple(_count(str(text), place) for text in _values(given))
        given = numbers if option.many else numbers[0]
    for value in _values(given) if option.choices else ():
        if value not in option.choices:
            raise ConfigError(f"{place}: {value!r} is not allowed. Allowed: {', '.join(option.choices)}.")
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
