"""What a model class module derives from: the battery as test methods, one per check, and how it runs without pytest.

Nothing here imports pytest. Its collection rules (no `__init__`, fixtures by argument name) are kept, so that one class
serves pytest and `TestBert("bert-base-uncased").test_pipeline("cpu")`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar
from warnings import warn

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import CheckOutcome, Status
from pytest_hfaccel.engine.model_selection import find_model, module_name
from pytest_hfaccel.engine.plan import class_level, has_check
from pytest_hfaccel.engine.session import Session

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.checks.base import Check
    from pytest_hfaccel.core.spec import Cell, ModelSpec
    from pytest_hfaccel.engine.runner import Runner

RunCheck = Callable[[str], CheckOutcome]

_CHECK = frozenset({"hf_check", "check"})
"""The fixture that runs a check, and its former name."""
_UNUSED = frozenset({"self", *_CHECK, "hf_measuring_point", "measuring_point"})
"""The parameters of a battery test that a call without pytest needs no fixture for."""
_OLD_NAMES = {"yields": "fallback", "unregistered": "extra_models"}
"""Attributes that subclasses may still set by their former names."""


class CallableWithModel(type):
    """Makes a test class callable with a model, and its checks with a device, while pytest collects it as before.

    pytest does not collect classes with a constructor. So `TestBert("bert-base-uncased")` is served here, and
    `test_pipeline("cpu")` by wrapping the function that pytest calls with the fixture `hf_check`.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> type:
        """Wrap the checks among the methods."""
        for key, value in namespace.items():
            code = getattr(value, "__code__", None)
            if key.startswith("test_") and code and not _CHECK.isdisjoint(code.co_varnames[: code.co_argcount]):
                namespace[key] = _callable_with_device(value)
        return super().__new__(mcs, name, bases, namespace, **options)

    def __call__(cls, model_id: str | None = None) -> Any:
        """Make an instance for a model: `model_id`, else the class's `model_id`, else its `default_model`."""
        instance = super().__call__()
        instance.model_id = model_id or cls.model_id or cls.default_model  # type: ignore[attr-defined]
        return instance


def _callable_with_device(test: Callable[..., None]) -> Callable[..., Any]:
    @wraps(test)  # pytest reads the parameters of the function that is wrapped
    def wrapper(self: ModelClassTests, hardware: Any = "cpu", **fixtures: Any) -> Any:
        __tracebackhide__ = True
        if not _CHECK.isdisjoint(fixtures):
            return test(self, **fixtures)
        if callable(hardware):  # `super().test_parity(hf_check)`
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

        test(instance, **{name: check if name in _CHECK else None for name in parameters if name != "self"})
    return found


def _outcome(runner: Runner, cell: Cell, name: str, instance: ModelClassTests) -> CheckOutcome:
    check = runner.checks[name]
    at = class_level([cell])[0] if check.level == "class" else cell
    if not has_check(at, check, runner.config):
        return CheckOutcome(name, Status.SKIPPED, reason=f"does not apply to {cell.model.task} on {cell.device}")
    run = runner.open(at, module_name(type(instance)), instance.task_sense)
    try:
        return run.check(name)
    finally:
        run.close()


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return a value as plain JSON types, without enum members."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


@contextmanager
def _opened(
    instance: ModelClassTests, model: str | None, hardware: str, dtype: str | None = None, *, optional: bool = True
) -> Iterator[tuple[Runner, Cell]]:
    """Give the cell of a model on a device, and what runs it; a check that is called by name needs no option."""
    from pytest_hfaccel.checks import built_in_checks

    asked = {check.option: True for check in built_in_checks() if optional and check.option}
    registry = Session(RunConfig.from_values({})).registry
    spec = find_model(type(instance), model, registry)
    config = RunConfig.from_values(
        {"models": (spec.name,), "devices": (hardware,), "dtypes": (dtype,) if dtype else None}
    ).replace(**asked)
    session = Session(config, registry=registry)
    try:
        yield session.runner, session.plan.cells([spec], session.store)[0]
    finally:
        session.close()


def _battery() -> dict[str, Any]:
    """Return a test method per built-in check, by name."""
    from pytest_hfaccel.checks import built_in_checks

    tests = {f"test_{check.name}": make_test(check) for check in built_in_checks()}

    def test_performance(self: object, hf_check: RunCheck, hf_measuring_point: Point) -> None:  # noqa: ARG001
        """Latency, throughput and memory are measured (with `--hf-performance`) at a batch size and length."""
        hf_check("performance")  # it knows the point, which is an argument so that each point is a test

    return {**tests, "test_performance": test_performance}


def make_test(check: Check) -> Callable[..., None]:
    """Return the test method that runs a check."""

    def test(self: object, hf_check: RunCheck) -> None:  # noqa: ARG001
        hf_check(check.name)

    test.__name__, test.__doc__ = f"test_{check.name}", check.summary
    return test


if TYPE_CHECKING:

    class _Battery(metaclass=CallableWithModel):
        def __getattr__(self, name: str) -> Callable[..., Any]: ...  # `test_parity` and the like

else:
    _Battery = CallableWithModel("_Battery", (), _battery())


class ModelClassTests(_Battery, metaclass=CallableWithModel):
    """The battery for a family of architecture classes. Derive one `Test...` class per family.

    Each built-in check has a method `test_<check>`, which runs it on one cell; `pytest_hfaccel.checks` has them.
    Without pytest, `TestBert("bert-base-uncased").test_pipeline("cpu")` returns `{"pipeline": outcome}` as plain JSON.
    The fixtures `hf_cell`, `hf_model`, `hf_inputs`, `hf_reference` and `hf_pipeline` serve tests of your own.

    Attributes:
        architectures: Wildcards over transformers class names, e.g. `("Bert*",)`.
        default_model: The model that is tested when the user names none, as `--hf-model` takes it: a registered name, a
            hub id, a directory; else the first registered model of the class.
        model_id: The model of an instance: what it was called with, as in `TestBert("gpt2")`, else `default_model`.
        fallback: Whether a model that another collected class tests, too, is left to that class.
    """

    architectures: ClassVar[tuple[str, ...]] = ()
    default_model: ClassVar[str] = ""
    model_id: str | None = None
    fallback: ClassVar[bool] = False

    if TYPE_CHECKING:  # what `CallableWithModel` takes; pytest collects no class with a constructor of its own

        def __init__(self, model_id: str | None = None) -> None: ...

    @classmethod
    def extra_models(cls) -> Sequence[ModelSpec]:
        """Return models that `--all-models` tests here without their being registered; none unless overridden.

        `pytest_hfaccel.main_pairs()` and `pytest_hfaccel.other_pairs()` are the classes of the installed transformers.
        """
        return ()

    @classmethod
    def serves(cls, spec: ModelSpec) -> bool:
        """Whether this class tests a model, by the model's architecture class."""
        return any(fnmatchcase(spec.architecture, pattern) for pattern in cls.architectures)

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse what would be ignored: task and dependencies are the registry's to say.

        Raises:
            TypeError: The class body sets one of them.
        """
        super().__init_subclass__(**options)
        for old, new in _OLD_NAMES.items():
            if old in vars(cls):
                warn(f"{cls.__qualname__}.{old} is now called {new}.", DeprecationWarning, stacklevel=3)
                setattr(cls, new, vars(cls)[old])
        for name in ("task", "dependencies", "class_name"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__qualname__}.{name} cannot be set here, but in a registry file (--hf-registry), under "
                    "`classes:` for all models of an architecture class and under `models:` for one."
                )

    @property
    def model_spec(self) -> ModelSpec:
        """What is known of the model of this instance.

        Raises:
            ConfigError: There is no such model, or it is of a class that is not tested here.
        """
        return find_model(type(self), self.model_id, Session(RunConfig.from_values({})).registry)

    @property
    def task(self) -> str:
        """The task of the model, e.g. `fill-mask`."""
        return self.model_spec.task

    @property
    def dependencies(self) -> list[str]:
        """The requirements of the model's class and its own, e.g. `["tokenizers>=0.11.0"]`."""
        return list(self.model_spec.dependencies)

    @property
    def class_name(self) -> str:
        """The model's transformers class, e.g. `BertForMaskedLM`."""
        return self.model_spec.architecture

    def task_sense(self, pipe: Any) -> Iterable[Any]:
        """Yield the family's own claims about a pretrained model, as `pytest_hfaccel.checks.base.Claim`.

        Args:
            pipe: The `transformers.pipeline` of the model's task on the cell's device.
        """
        del pipe
        return ()

    def run_tests(self, hardware: str = "cpu", model_id: str | None = None, dtype: str | None = None) -> dict[str, Any]:
        """Run the battery without pytest. A single check runs by its test: `TestBert("gpt2").test_pipeline("cpu")`.

        Args:
            hardware: Device id, e.g. `cpu` or `openvino:CPU`.
            model_id: Model to test; `self.model_id` when not given.
            dtype: Precision; the model's first one when not given.

        Returns:
            The record of the cell as plain JSON, and under `class` that of the checks that run once per model.

        Raises:
            ConfigError: The model or the device is unknown, or the model is of a class that is not tested here.
        """
        with _opened(self, model_id or self.model_id, hardware, dtype, optional=False) as (runner, cell):
            module = module_name(type(self))
            once, record = (runner.run(at, module, self.task_sense) for at in (*class_level([cell]), cell))
            return _plain({**record.to_json(), "class": once.to_json()})
