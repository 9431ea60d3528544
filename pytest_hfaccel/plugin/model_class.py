"""What a model class module derives from: the battery as pytest tests, one per check.

This file needs nothing of pytest but its collection rules (no `__init__`, fixtures by argument name), so that a model
class module can also be run as a script and its classes be used without pytest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.points import Point
    from pytest_hfaccel.results import CheckOutcome
    from pytest_hfaccel.spec import ModelSpec

    RunCheck = Callable[[str], CheckOutcome]


class ModelClassTests:
    """The battery for a family of architecture classes. Derive one `Test...` class per family.

    Each `test_<check>` runs the check of that name on one cell; `pytest_hfaccel.checks` says what each one verifies.
    The fixtures `cell`, `loaded`, `inputs`, `reference` and `pipe` serve tests of your own.

    Attributes:
        architectures: Wildcards over transformers class names, e.g. `("Bert*",)`.
        default_model: The model that is tested when the user names none, as `--hf-model` takes it: a registered name, a
            hub id, a directory; else the first registered model of the class.
        model_id: The model `run_tests` uses when it is given none.
        yields: Whether a model that another collected class tests, too, is left to that class.
    """

    architectures: ClassVar[tuple[str, ...]] = ()
    default_model: ClassVar[str] = ""
    model_id: str | None = None
    yields: ClassVar[bool] = False

    @classmethod
    def unregistered(cls) -> Sequence[ModelSpec]:
        """Return models that `--all-models` tests here without their being registered; none unless overridden.

        `pytest_hfaccel.main_pairs()` and `pytest_hfaccel.other_pairs()` are the classes of the installed transformers.
        """
        return ()

    @classmethod
    def serves(cls, spec: ModelSpec) -> bool:
        """Whether this class tests a model, by the model's architecture class."""
        return any(fnmatchcase(spec.architecture, pattern) for pattern in cls.architectures)

    def task_sense(self, pipe: Any) -> Iterable[Any]:
        """Yield the family's own claims about a pretrained model, as `pytest_hfaccel.checks.claims.Claim`.

        Args:
            pipe: The `transformers.pipeline` of the model's task on the cell's device.
        """
        del pipe
        return ()

    def test_resolves(self, check: RunCheck) -> None:
        """The class exists in this transformers, at a version it supports, with what it depends on."""
        check("resolves")

    def test_from_pretrained(self, check: RunCheck) -> None:
        """The checkpoint loads without missing keys, and save -> load reproduces its outputs."""
        check("from_pretrained")

    def test_placement(self, check: RunCheck) -> None:
        """The model is on the device that was asked for, and runs at the precision that was asked for."""
        check("placement")

    def test_forward(self, check: RunCheck) -> None:
        """A forward pass gives outputs of the reference's names and shapes, all finite."""
        check("forward")

    def test_parity(self, check: RunCheck) -> None:
        """The outputs equal the reference's within the tolerance of the dtype."""
        check("parity")

    def test_determinism(self, check: RunCheck) -> None:
        """The same inputs give the same outputs."""
        check("determinism")

    def test_batch_invariance(self, check: RunCheck) -> None:
        """A sample alone gives what it gives within a batch."""
        check("batch_invariance")

    def test_padding_invariance(self, check: RunCheck) -> None:
        """Masked padding changes nothing."""
        check("padding_invariance")

    def test_generation(self, check: RunCheck) -> None:
        """Greedy tokens equal the reference's, with and without cache."""
        check("generation")

    def test_pipeline(self, check: RunCheck) -> None:
        """`transformers.pipeline` gives what the direct API gives."""
        check("pipeline")

    def test_task_sense(self, check: RunCheck) -> None:
        """A pretrained model makes sense of its task."""
        check("task_sense")

    def test_memory(self, check: RunCheck) -> None:
        """Repeated runs do not leak; the peak is recorded."""
        check("memory")

    def test_canary(self, check: RunCheck) -> None:
        """A model with one wrong weight fails parity on this device."""
        check("canary")

    def test_attention(self, check: RunCheck) -> None:
        """The implementations of attention agree (with `--hf-attention`)."""
        check("attention")

    def test_compile(self, check: RunCheck) -> None:
        """A compiled model gives what the model gives (with `--hf-compile`)."""
        check("compile")

    def test_training(self, check: RunCheck) -> None:
        """The model learns on this device (with `--hf-training`)."""
        check("training")

    def test_performance(self, check: RunCheck, measuring_point: Point) -> None:
        """Latency, throughput and memory are measured (with `--hf-performance`) at a batch size and length."""
        del measuring_point  # the check knows it; it is named here so that each point is a test
        check("performance")

    def test_extra(self, check: RunCheck, extra_check: str) -> None:
        """A check that a plugin or a conftest registered."""
        check(extra_check)

    def run_tests(self, hardware: str = "cpu", model_id: str | None = None) -> dict[str, Any]:
        """Run the battery without pytest.

        Args:
            hardware: Device id, e.g. `cpu` or `openvino:CPU`.
            model_id: Model to test; `self.model_id`, else the class's default.

        Returns:
            The record of the cell as plain JSON, and under `class` that of the checks that run once per model.

        Raises:
            ConfigError: The model or the device is unknown.
        """
        from pytest_hfaccel.config import RunConfig
        from pytest_hfaccel.plugin.plan import make_plan
        from pytest_hfaccel.registry import load_registry
        from pytest_hfaccel.runner import Runner

        config = RunConfig.from_values(
            {"models": (model_id or self.model_id or self.default_model,), "devices": (hardware,)}
        )
        runner = Runner(config)
        try:
            plan = make_plan(config, load_registry(cache_dir=config.cache_dir), runner.store)
            return run_class(runner, plan.cells(plan.named, runner.store), module_name(type(self)), self.task_sense)
        finally:
            runner.close()


def run_class(runner: Any, cells: Sequence[Any], module: str, claims: Callable[[Any], Any]) -> dict[str, Any]:
    """Run the cells of one model and its class-level checks; return their records as plain JSON."""
    from pytest_hfaccel.matrix import class_level

    records = [runner.run(cell, module, claims).to_json() for cell in (*class_level(cells), *cells)]
    return {**records[-1], "class": records[0]}


def module_name(model_class: type) -> str:
    """The module's name in reports: `bert` for `test_hf_bert.py`."""
    return model_class.__module__.rpartition(".")[-1].removeprefix("test_").removeprefix("hf_")


_SCRIPT_FLAGS = {"--model": "--hf-model", "--performance": "--hf-performance", "--device": "--hf-device"}


def main(path: str, arguments: Sequence[str] | None = None) -> int:
    """Run a model class module as a script: `python model_classes/test_hf_bert.py --model bert-base-uncased`.

    `--model`, `--device` and `--performance` are short for `--hf-model`, `--hf-device` and `--hf-performance`; every
    other argument goes to pytest as it is.

    Args:
        path: The module's `__file__`.
        arguments: Command-line arguments; those of this process when not given.

    Returns:
        pytest's exit code.
    """
    import pytest

    given = sys.argv[1:] if arguments is None else arguments
    translated = []
    for argument in given:
        flag, equals, value = argument.partition("=")
        translated.append(_SCRIPT_FLAGS.get(flag, flag) + equals + value)
    return int(pytest.main([path, *translated]))
