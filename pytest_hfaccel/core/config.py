"""The configuration of a run: every option declared once, with its type, its spellings and where its value came from.

`plugin/options.py` derives pytest's options and ini settings from `RunConfig.options()`, `cli/` its arguments; nobody
else reads an option. pytest imports this module at every start: it imports nothing that can wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
"""Consent to remote code for all models whose registry entry has `requires_remote_code`."""

DEFAULT = "default"
"""The source of a value that the user did not set."""

STATUSES = (
    *("passed", "failed", "xfailed", "xpassed", "skipped", "error", "crashed", "timeout", "out_of_memory"),
    *("unavailable", "gated", "hub_error", "infra_error", "incomplete"),
)
"""The members of `core.results.Status`, which is not imported here."""


COMPARED = ("verdicts", "missing", "drift", "speed", "memory")
"""What of a run may be worse than of another, see `comparison`."""


class Option(Generic[T]):
    """One field of `RunConfig`; read on an instance it is the value.

    Attributes:
        name: The field's name.
        flag: Its name on the command line; empty where it has none.
        default: The value if the user sets none.
        help: Its help text.
        env: Its environment variable: `HFACCEL_` and the flag's name, unless another is given.
        ini: Its name in pytest's configuration file: the flag's, with underscores.
        many: Whether it may be repeated.
        split: Whether a value may also be a list, separated by commas.
        counts: Whether its values are whole numbers of at least 1.
        bare: The value of the flag alone; empty where it needs one.
        is_path: Whether it names a file or a directory; `~` and `~user` are home directories.
        choices: The allowed values; any when empty.
        metavar: What help shows for the value.
        old_flag: The flag in the release before. It works, with a warning, and so does its environment variable.
        instead: What replaces an option that will be removed: whoever sets it is warned.
    """

    def __init__(
        self,
        flag: str,
        default: T,
        text: str,
        *,
        env: str = "",
        many: bool = False,
        split: bool = False,
        counts: bool = False,
        bare: str = "",
        is_path: bool = False,
        choices: tuple[str, ...] = (),
        old_flag: str = "",
        metavar: str = "",
        instead: str = "",
    ) -> None:
        self.name = ""
        self.flag, self.default, self.help = flag, default, text
        self.env = env or _variable(flag)
        self.ini = flag.lstrip("-").replace("-", "_")
        self.many, self.split, self.counts, self.bare = many, split, counts, bare
        self.is_path, self.choices = is_path, choices
        self.old_flag, self.old_env, self.metavar = old_flag, _variable(old_flag), metavar
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.env = self.env or _variable(name)

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


def _variable(name: str) -> str:
    """Return the environment variable of a flag, or of a field without one: `--hf-model` -> `HFACCEL_MODEL`."""
    return f"HFACCEL_{name.removeprefix('--').removeprefix('hf-').replace('-', '_').upper()}" if name else ""


def _list(flag: str, text: str, **traits: Any) -> Any:
    """Declare an option that may be repeated."""
    return Option(flag, (), text, many=True, **traits)


class RunConfig:
    """What the user asked for. Every value is plain data, so that a controller can hand it to its workers."""

    all_models = Option("--all-models", False, "Test every registered model of each selected model class module.")
    all_hardware = Option("--all-hardware", False, "Test on every device found on this machine.")
    models: Option[tuple[str, ...]] = _list(
        "--hf-model", "Model to test: registry name, wildcard ('bert*'), hub id or local directory. May be repeated."
    )
    devices: Option[tuple[str, ...]] = _list(
        "--hf-device", "Device to test on: cpu, cuda:0, mps, openvino:CPU, ... Comma-separated or repeated.", split=True
    )
    dtypes: Option[tuple[str, ...]] = _list(
        "--hf-dtype", "Precision to test at: fp32, bf16, fp16, int8. Comma-separated or repeated.", split=True
    )
    parallel: Option[tuple[str, ...]] = _list(
        "--hf-parallel",
        "How to split the models over devices of torch: tp=2 (tensor parallel in two processes), auto (device_map) or "
        "offload (part of the weights on the CPU or the disk); none for whole models. Comma-separated or repeated.",
        split=True,
    )
    weights = Option(
        "--hf-weights",
        "auto",
        "Weights to test with: pretrained, random (real dimensions), tiny (shrunken), or auto: pretrained if they "
        "are on this machine, or if the model was named and the hub answers; otherwise tiny.",
        choices=WEIGHTS_CHOICES,
    )
    registries: Option[tuple[str, ...]] = _list(
        "--hf-registry",
        "Registry file (YAML or JSON) that adds to or overrides the shipped one. May be repeated.",
        is_path=True,
    )
    require: Option[tuple[str, ...]] = _list(
        "--hf-require-device",
        "Device that must be present: its absence fails the run.",
        split=True,
        old_flag="--hf-require",
    )
    performance = Option("--hf-performance", False, "Also measure latency and throughput of each cell.")
    batch_sizes: Option[tuple[int, ...]] = _list(
        "--hf-performance-batch-sizes",
        "With --hf-performance: batch sizes to measure at (default: 1). Comma-separated or repeated.",
        split=True,
        counts=True,
        old_flag="--hf-batch-sizes",
    )
    seq_lengths: Option[tuple[int, ...]] = _list(
        "--hf-performance-seq-lengths",
        "With --hf-performance: tokens per sample to measure at (default: as many as the sample inputs have). "
        "Comma-separated or repeated.",
        split=True,
        counts=True,
        old_flag="--hf-seq-lengths",
    )
    prices: Option[tuple[str, ...]] = _list(
        "--hf-price",
        "With --hf-performance: price per hour of a device, as in 'cuda:0=1.89', a kind or a wildcard; reports then "
        "say what a million tokens or samples cost. Comma-separated or repeated.",
        split=True,
        metavar="DEVICE=PRICE",
    )
    database = Option(
        "--hf-database",
        "",
        "Benchmark database the run is written to, or 'none' (default: hfaccel.duckdb in the working directory when "
        "performance is measured, else none).",
        env="BENCHMARK_DB_PATH",
        is_path=True,
    )
    resume: Option[tuple[str, ...]] = _list(
        "--hf-resume",
        "Continue the latest run of the reports directory, or, with '=RUN', another one (see `hfaccel runs`). "
        "Its finished cells are not run again and keep their outcomes. A cell is run again when something "
        "that decides its outcome has changed.",
        bare=LATEST_RUN,
    )
    retry: Option[tuple[str, ...]] = _list(
        "--hf-resume-retry",
        "With --hf-resume: run cells with this status again: crashed, failed, error, ... Comma-separated or repeated.",
        split=True,
        choices=STATUSES,
        old_flag="--hf-retry",
    )
    baseline = Option(
        "--hf-baseline",
        "",
        "At the end of the run, compare it with an earlier one (its id, number or folder, its journal, a directory of "
        "reports, or 'latest') or with a benchmark database: verdicts, numeric drift, speed, memory.",
        metavar="RUN",
    )
    baseline_fail_on: Option[tuple[str, ...]] = _list(
        "--hf-baseline-fail-on",
        "With --hf-baseline: what fails the run if it is worse: verdicts, missing, drift, speed, memory (default: "
        "nothing, it is only shown). Comma-separated or repeated.",
        split=True,
        choices=COMPARED,
        metavar="KIND",
    )
    isolate = Option(
        "--hf-isolate",
        False,
        "Without pytest-xdist: run the tests of each model in a process of its own, so that a crash or a hang costs "
        "one cell. Workers of pytest-xdist are isolated anyway.",
    )
    timeout = Option(
        "--hf-timeout",
        0,
        "Seconds that a test may take, loading included; then its process is ended and the cell is recorded as "
        "'timeout' (default: no limit). Without pytest-xdist it implies --hf-isolate.",
        counts=True,
    )
    plan = Option(
        "--hf-plan",
        "",
        "Plan of a run on many machines (see `hfaccel plan`): run the shard that --hf-shard names, with the arguments "
        "that the plan was made for.",
        is_path=True,
    )
    shard = Option("--hf-shard", "", "Which shard of --hf-plan to run: '3/8' is the third of eight.", metavar="K/N")
    reports = Option("--hf-reports", "reports", "Directory for the reports of this run.", is_path=True)
    reports_mode = Option(
        "--hf-reports-mode",
        "600",
        "Permissions of the report files, which contain command lines and model names.",
        choices=("600", "640", "644", "660", "664"),
    )
    keep_runs = Option(
        "--hf-reports-keep",
        20,
        "How many run folders to keep in the reports directory, including this run's; older ones are removed when it "
        "ends.",
        counts=True,
        old_flag="--hf-keep-runs",
    )
    progress = Option(
        "--hf-progress",
        "auto",
        "Rows at the bottom of the terminal: what runs where, memory, what is done, time left. auto: in a terminal, "
        "but not in CI, with -q, or where the output is piped.",
        choices=("auto", "off"),
    )
    cache = Option(
        "--hf-cache",
        "",
        "Directory for built checkpoints and converted models (default: the user's cache directory).",
        is_path=True,
    )
    trust_remote_code: Option[tuple[str, ...]] = _list(
        "--hf-trust-remote-code",
        "Run the Python code in a model's repository, if the model's entry in your registry says that it needs it; "
        "with '=X', for the model with exactly this id or path. May be repeated.",
        bare=REGISTERED,
    )
    allow_pickle = Option("", False, "Also load weights that are not safetensors; unpickling runs code.")
    budget = Option(
        "--hf-budget",
        "failures",
        "When to compute what rounding to the dtype must cost a model on its input, by emulation on the reference: "
        "off, failures (of parity), report (every cell), or enforce: more than four times that fails parity, even "
        "where the table allows it.",
        choices=("off", "failures", "report", "enforce"),
    )
    samples = Option(
        "--hf-samples",
        1,
        "How many inputs parity compares: the sample's and others drawn from seeds (default: 1; 5 to 8 for runs on "
        "accuracy). The record then has a bound on the share of inputs that fail.",
        counts=True,
    )
    power = Option(
        "--hf-power",
        False,
        "Search for the smallest wrong weight that the check canary notices in each cell: up to eight more passes.",
    )
    explain = Option(
        "--hf-explain",
        "off",
        "Explain the first three failures at the end of the run, as `hfaccel explain` does: off, or the seconds that "
        "this may take in all.",
        metavar="SECONDS",
    )
    training = Option(
        "--hf-training", False, "Also train each cell for one step: loss, gradients, gradient checkpointing."
    )
    attention = Option(
        "--hf-attention",
        False,
        "Also compare the implementations of attention that run here: eager, sdpa, flash and flex.",
    )
    compile = Option(
        "--hf-compile",
        False,
        "Also compare the model with its torch.compile'd form, by inductor and OpenVINO if they are installed. "
        "Deprecated: --hf-device cpu+inductor runs all checks on it.",
        instead="--hf-device cpu+inductor, which runs all checks on the compiled model",
    )
    transformers_js = Option(
        "--hf-transformers-js",
        False,
        "Also compare the pipeline of transformers.js in the page with that of transformers (wasm, webgpu).",
    )
    browser = Option(
        "",
        "",
        "Browser that runs wasm, webgpu and webnn (default: the Chromium, Chrome or Edge of this machine; for webnn on "
        "Linux the one of the npm package @sparticuz/chromium).",
        env="HFACCEL_BROWSER",
        is_path=True,
    )
    node_modules = Option(
        "",
        "",
        "Folder of the npm packages that run in the browser (default: the next node_modules from the working directory "
        "upwards).",
        env="HFACCEL_NODE_MODULES",
        is_path=True,
    )
    rank_timeout = Option(
        "",
        600,
        "Seconds after which a process of a tensor-parallel model that does not answer counts as hanging.",
        counts=True,
        env="HFACCEL_RANK_TIMEOUT",
    )
    pool_memory = Option(
        "",
        "",
        "Memory budget of the pool per device, as '8GiB' or as a share of what is free ('50%'; the default is 70%).",
    )

    ledger = Option(
        "",
        "",
        "File in which the runs of this machine share its devices; it is made if it is not there (default: workers of "
        "one run share one in a temporary directory, a run without workers has none).",
        is_path=True,
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

    @property
    def explain_seconds(self) -> int:
        """How long the first failures may be explained: `--hf-explain`; 0 for off.

        Raises:
            ConfigError: The value is neither `off` nor a number of seconds.
        """
        text = str(self.explain).strip().lower()
        if text == "off":
            return 0
        if not text.isdecimal() or int(text) < 1:
            place = self.source_of("explain")
            raise ConfigError(f"{place}: {self.explain!r} is not allowed. Allowed: off, or whole seconds, as in 60.")
        return int(text)

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
            ini: Returns the text of an option in the configuration file; `None` where it is not there.
            warn: Called for what is deprecated: variables with an old name, options that another one replaces; by
                default a `DeprecationWarning`.

        Raises:
            ConfigError: A value is blank, or not among the allowed ones.
        """
        environ = os.environ if environ is None else environ
        out: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for option in cls.options():
            value, place = values.get(option.name), option.flag or option.name
            if value is None:
                text = None
                if option.env in environ:
                    text, place = environ[option.env], option.env
                elif option.old_env and option.old_env in environ:
                    (warn or _deprecate)(f"The environment variable {option.old_env} is now called {option.env}.")
                    text, place = environ[option.old_env], option.old_env
                elif option.flag:
                    text, place = ini(option), option.ini
                if text is not None:
                    value = _from_text(text, place, option)
            if value is not None:
                out[option.name] = _checked(value, place, option)
                if option.instead and value:
                    (warn or _deprecate)(f"{place} is deprecated. Use {option.instead}.")
                sources[option.name] = place
        config = cls(**out)
        config.__dict__["_sources"] = sources
        return config


def _deprecate(text: str) -> None:
    import warnings

    warnings.warn(text, DeprecationWarning, stacklevel=3)


def _from_text(text: str, place: str, option: Option[Any]) -> Any:
    """Return the value of an environment variable as the command line would have returned it."""
    switch = text.strip().lower()
    if option.is_switch:
        if switch not in (*_YES, *_NO):
            _not_blank(text, text, place)
            raise ConfigError(f"{place}: {text!r} is not allowed. Allowed: {', '.join((*_YES, *_NO))}.")
        return switch in _YES
    if option.bare and switch in (*_YES, *_NO):
        return (option.bare,) if switch in _YES else ()
    if option.many:
        return text.split(",") if text.strip() else [text]
    return text


_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _checked(value: Any, place: str, option: Option[Any]) -> Any:
    """Return the value of an option as its field holds it.

    Args:
        value: As given: texts where the option may be repeated.
        place: The flag, the environment variable, or the name in the configuration file.
        option: The option.
    """
    if option.is_switch:
        return value
    read: list[Any] = []
    for text in map(str, value if option.many else (value,)):
        parts = text.split(",") if option.split else (text,)
        read += [_not_blank(part.strip() if option.many else part, text, place) for part in parts]
    for part in read:
        if option.is_path:
            expand_path(part, place)
        if option.choices and part not in option.choices:
            raise ConfigError(f"{place}: {part!r} is not allowed. Allowed: {', '.join(option.choices)}.")
    if option.counts:
        read = [_count(part, place) for part in read]
    return tuple(dict.fromkeys(read)) if option.many else read[0]


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


def _not_blank(text: str, whole: str, place: str) -> str:
    """Refuse what is blank: the default would run instead of what somebody meant to name."""
    if text.strip():
        return text
    what = "is blank" if not whole.strip() else f"{whole!r} has a blank in it"
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
