"""A model class without pytest: its checks called from Python, and its module run as a script."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.core.results import CheckOutcome
    from pytest_hfaccel.core.spec import Cell, ModelSpec
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.plugin.model_class import ModelClassTests

_CHECK = "check"
_UNUSED = frozenset({"self", _CHECK, "measuring_point"})
"""The parameters of a battery test that a call without pytest needs no fixture for."""


class CallableWithModel(type):
    """Makes a test class callable with a model, and its checks with a device, while pytest collects it as before.

    pytest collects no class that has a constructor of its own. So `TestBert("bert-base-uncased")` is served here, and
    `test_pipeline("cpu")` by wrapping the function that pytest calls with the fixture `check`.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> type:
        """Wrap the checks among the methods."""
        for key, value in namespace.items():
            code = getattr(value, "__code__", None)
            if key.startswith("test_") and code and _CHECK in code.co_varnames[: code.co_argcount]:
                namespace[key] = _callable_with_device(value)
        return super().__new__(mcs, name, bases, namespace, **options)

    def __call__(cls, model_id: str | None = None) -> Any:
        """Make an instance for a model: the given one, else the class's `model_id`, else its `default_model`."""
        instance = super().__call__()
        instance.model_id = model_id or cls.model_id or cls.default_model  # type: ignore[attr-defined]
        return instance


def _callable_with_device(test: Callable[..., None]) -> Callable[..., Any]:
    @wraps(test)  # pytest reads the parameters of the function that is wrapped
    def wrapper(self: ModelClassTests, hardware: Any = "cpu", **fixtures: Any) -> Any:
        __tracebackhide__ = True
        if _CHECK in fixtures:
            return test(self, **fixtures)
        if callable(hardware):  # `super().test_parity(check)`
            return test(self, hardware, **fixtures)
        return _run_on(self, test, hardware)

    return wrapper


def _run_on(instance: ModelClassTests, test: Any, hardware: str) -> dict[str, Any]:
    """Run the checks of one battery test on a device; return their outcomes as plain JSON by the check's name."""
    parameters = test.__code__.co_varnames[: test.__code__.co_argcount]
    if foreign := sorted(set(parameters) - _UNUSED):
        raise TypeError(f"{test.__name__} needs fixtures of pytest: {', '.join(foreign)}. Run it with pytest.")
    found: dict[str, Any] = {}
    with _opened(instance, instance.model_id, hardware) as (runner, cell):

        def check(name: str) -> CheckOutcome:
            outcome = _outcome(runner, cell, name, instance)
            found[name] = _plain(outcome.to_json())
            return outcome

        test(instance, **{name: check if name == _CHECK else None for name in parameters if name != "self"})
    return found


def _outcome(runner: Runner, cell: Cell, name: str, instance: ModelClassTests) -> CheckOutcome:
    from pytest_hfaccel.core.results import CheckOutcome, Status
    from pytest_hfaccel.engine.plan import class_level
    from pytest_hfaccel.engine.runner import has_check

    check = runner.checks[name]
    at = class_level([cell])[0] if check.level == "class" else cell
    if not has_check(at, check, runner.config):
        return CheckOutcome(name, Status.SKIPPED, reason=f"does not apply to {cell.model.task} on {cell.device}")
    run = runner.open(at, module_name(type(instance)), instance.task_sense)
    try:
        return run.check(name)
    finally:
        run.close()


def run_battery(instance: ModelClassTests, hardware: str, model_id: str | None, dtype: str | None) -> dict[str, Any]:
    """Run all checks of one model on one device; see `ModelClassTests.run_tests`."""
    from pytest_hfaccel.engine.plan import class_level

    with _opened(instance, model_id or instance.model_id, hardware, dtype, optional=False) as (runner, cell):
        module = module_name(type(instance))
        once, record = (runner.run(at, module, instance.task_sense) for at in (*class_level([cell]), cell))
        return _plain({**record.to_json(), "class": once.to_json()})


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of a value: an enum's member prints as a riddle."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


@contextmanager
def _opened(
    instance: ModelClassTests, model: str | None, hardware: str, dtype: str | None = None, *, optional: bool = True
) -> Iterator[tuple[Runner, Cell]]:
    """Give the cell of a model on a device, and what runs it; a check that is called by name needs no option."""
    from pytest_hfaccel.checks import built_in_checks
    from pytest_hfaccel.engine.plan import make_plan
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.registry import load_registry

    asked = {check.option: True for check in built_in_checks() if optional and check.option}
    spec = find_model(type(instance), model)
    config = RunConfig.from_values(
        {**asked, "models": (spec.name,), "devices": (hardware,), "dtypes": (dtype,) if dtype else None}
    )
    runner = Runner(config)
    try:
        registry = load_registry(config.registry_files, cache_dir=config.cache_dir)
        plan = make_plan(config, registry, runner.store)
        yield runner, plan.cells([spec], runner.store)[0]
    finally:
        runner.close()


def find_model(model_class: type[ModelClassTests], name: str | None) -> ModelSpec:
    """Return the model of a name, as `--hf-model` understands it and `HFACCEL_REGISTRY` adds to it.

    Without a name that is the first registered model of the class.

    Raises:
        ConfigError: There is none, several, or one that the model class does not test.
    """
    from pytest_hfaccel.registry import load_registry, resolve_model

    config = RunConfig.from_values({})
    registry = load_registry(config.registry_files, cache_dir=config.cache_dir)
    name = name or next((spec.name for spec in registry.specs if model_class.serves(spec)), None)
    if name is None:
        raise ConfigError(f"{model_class.__name__} has no `default_model`; name one: {model_class.__name__}('gpt2').")
    found = resolve_model(name, registry)
    if len(found) > 1:
        raise ConfigError(f"{name!r} names several models: {', '.join(spec.name for spec in found)}. Name one.")
    if not model_class.serves(found[0]):
        raise ConfigError(
            f"{model_class.__name__} does not test {name!r}: its class is {found[0].architecture}.",
            hint=f"{model_class.__name__} tests {', '.join(model_class.architectures) or 'no class'}. "
            "Use the model class whose `architectures` match.",
        )
    return found[0]


def module_name(model_class: type) -> str:
    """The module's name in reports: `bert` for `test_hf_bert.py`."""
    return model_class.__module__.rpartition(".")[-1].removeprefix("test_").removeprefix("hf_")


def main(path: str, arguments: Sequence[str] | None = None) -> int:
    """Run a model class module as a script: `python model_classes/test_hf_bert.py --model bert-base-uncased`.

    Every option `--hf-<name>` can be written `--<name>`; every argument that is none of them goes to pytest as it is.
    `--help` shows these options and not pytest's.

    Args:
        path: The module's `__file__`.
        arguments: Command-line arguments; those of this process when not given.

    Returns:
        pytest's exit code.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        _help_parser(path).print_help()
        return 0
    import pytest

    short = {_short(flag): flag for flag in _flags()}
    parts = [argument.partition("=") for argument in given]
    return int(pytest.main([path, *(short.get(flag, flag) + equals + value for flag, equals, value in parts)]))


def _flags() -> list[str]:
    return [option.metadata["flag"] for option in fields(RunConfig) if option.metadata["flag"]]


def _short(flag: str) -> str:
    return "--" + flag.removeprefix("--").removeprefix("hf-")


def _help_parser(path: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python {Path(path).name}",
        usage="%(prog)s [options] [arguments of pytest]",
        description="Test models of this module's classes: by default its default model on the best device here.",
        epilog="Every option can also be written --hf-<name>. All other arguments go to pytest: -k parity, -x, -n 2, "
        "--junitxml=FILE (`pytest --help` shows them).",
    )
    for option in fields(RunConfig):
        if flag := option.metadata["flag"]:
            text = f"{option.metadata['help']} [{option.metadata['env']}]".replace("%", "%%")
            if isinstance(option.default, bool):
                parser.add_argument(_short(flag), action="store_true", help=text)
            else:
                nargs = "?" if option.metadata["bare"] else None
                parser.add_argument(_short(flag), metavar="X", nargs=nargs, help=text)
    return parser
