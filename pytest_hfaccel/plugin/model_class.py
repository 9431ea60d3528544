"""What a model class module derives from: the battery as pytest tests, one per check.

This file needs nothing of pytest but its collection rules (no `__init__`, fixtures by argument name), so that a model
class module can also be run as a script and its classes be used without pytest (`without_pytest`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_hfaccel.plugin.without_pytest import CallableWithModel, find_model, run_battery

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.core.results import CheckOutcome
    from pytest_hfaccel.core.spec import ModelSpec

    RunCheck = Callable[[str], CheckOutcome]


class ModelClassTests(metaclass=CallableWithModel):
    """The battery for a family of architecture classes. Derive one `Test...` class per family.

    Each `test_<check>` runs the check of that name on one cell; `pytest_hfaccel.checks` says what each one verifies.
    Without pytest, `TestBert("bert-base-uncased").test_pipeline("cpu")` returns `{"pipeline": outcome}` as plain JSON.
    The fixtures `cell`, `loaded`, `inputs`, `reference` and `pipe` serve tests of your own.

    Attributes:
        architectures: Wildcards over transformers class names, e.g. `("Bert*",)`.
        default_model: The model that is tested when the user names none, as `--hf-model` takes it: a registered name, a
            hub id, a directory; else the first registered model of the class.
        model_id: The model of an instance: what it was called with, as in `TestBert("gpt2")`, else `default_model`.
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

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse what would be ignored: task and dependencies are the registry's to say.

        Raises:
            TypeError: The class body sets one of them.
        """
        super().__init_subclass__(**options)
        for name in ("task", "dependencies", "class_name"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__qualname__}.{name} cannot be set: a registry file (--hf-registry) says it, under "
                    "`classes:` for all models of an architecture class and under `models:` for one."
                )

    @property
    def model_spec(self) -> ModelSpec:
        """What is known of the model of this instance.

        Raises:
            ConfigError: There is no such model, or it is of a class that is not tested here.
        """
        return find_model(type(self), self.model_id)

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

    def test_sensitivity(self, check: RunCheck) -> None:
        """Other inputs give other outputs, input by input."""
        check("sensitivity")

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
        return run_battery(self, hardware, model_id, dtype)
