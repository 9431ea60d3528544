"""Makes the experiments that tell whose doing a failure is; `cause.py` says what follows from them.

The order is that of the rules there, so that a time limit cuts off those that matter least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.core.devices import ONNX_KINDS
from pytest_hfaccel.core.errors import HfAccelError, error_line, first_line
from pytest_hfaccel.core.results import Cause, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import CPU, Cell
from pytest_hfaccel.explain import cause, variants
from pytest_hfaccel.explain.cause import AGREES, DIFFERS, NOT_POSSIBLE, NOT_TRIED, Experiment, Verdict
from pytest_hfaccel.explain.modules import Side
from pytest_hfaccel.hardware.confirm import confirm_device
from pytest_hfaccel.numerics.budgets import ALLOWED_FACTOR
from pytest_hfaccel.numerics.compare import LeafDifference, difference
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.tolerances import tolerance_of

if TYPE_CHECKING:
    from pytest_hfaccel.engine.cell_run import CellRun
    from pytest_hfaccel.engine.runner import Runner

    Tensors = Mapping[str, torch.Tensor]

ABOUT_NUMBERS = frozenset({"parity", "forward"})
"""The checks that compare the outputs with the reference's: for them the outputs of each experiment are compared."""

_OF_THE_CLASS = frozenset(
    {"generation", "determinism", "padding_invariance", "task_sense", "training", "attention", "memory"}
)
"""The checks that the cell `cpu` in fp32, which is torch itself, fails by nothing but the class's code. Others may fail
by what the tiny checkpoint or its inputs are."""

_SETTLED = frozenset({Cause.PACKAGE, Cause.TINY_CHECKPOINT, Cause.TIME})
"""Causes that the failure itself says."""

_BEFORE_RUN = (Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE)
_SHARE = 0.01


class Examination:
    """The experiments on one failure of a cell.

    Args:
        runner: Runs cells.
        cell: The cell.
        check: The check that failed.
        module: The model class module of the cell, which may have tests of its own.
        seconds: After so long no further experiment is begun; `None` for no limit.
    """

    def __init__(self, runner: Runner, cell: Cell, check: str, module: str = "", seconds: float | None = None) -> None:
        self._runner, self._cell, self._check, self._module = runner, cell, check, module
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._found: list[Experiment] = []
        self._seen: dict[str, float] = {}

    def verdict(self, known: Sequence[Experiment] = ()) -> Verdict:
        """Make the experiments and return what follows.

        Args:
            known: What is known already, such as of the first wrong operator; see `cause.OPERATOR`.
        """
        run = self._runner.open(self._cell, self._module)
        try:
            with _noted() as clock:
                outcome = run.check(self._check)
            if outcome.status in (Status.SKIPPED, Status.UNAVAILABLE):
                why = f"{self._check} is {outcome.status} now: {first_line(outcome.reason)}"
                return Verdict(self._check, Cause.UNDECIDED, why, is_failure=False)
            if not outcome.status.is_bad:
                again = Experiment(cause.AGAIN, AGREES, about=f"{self._check} {outcome.status}", seconds=clock())
                return cause.decide(self._check, [again, *known], self._cell.dtype)
            if outcome.cause in _SETTLED or outcome.status in (Status.GATED, Status.HUB_ERROR, Status.INFRA_ERROR):
                return Verdict(self._check, outcome.cause or Cause.UNDECIDED, first_line(outcome.reason))
            for name, make in self._experiments(run, outcome):
                self._try(name, make)
        finally:
            run.close()
        self._found += known
        is_exported, is_converted = self._cell.device.traits.exported, outcome.stage != Stage.CONVERT
        return cause.decide(
            self._check, self._found, self._cell.dtype, is_exported=is_exported, is_converted=is_converted
        )

    def _experiments(self, run: CellRun, outcome: CheckOutcome) -> Iterator[tuple[str, Callable[[], Experiment]]]:
        """Yield the experiments that apply, by name."""
        has_outputs = self._check in ABOUT_NUMBERS and outcome.stage not in _BEFORE_RUN and _has_outputs(run)
        yield cause.AGAIN, lambda: self._again(run, outcome, has_outputs)
        if self._cell.device != CPU:
            yield cause.PRODUCT, self._known_product
        if has_outputs:
            yield from self._of_numbers(run)
        else:
            yield from self._of_checks(run, outcome)

    def _of_numbers(self, run: CellRun) -> Iterator[tuple[str, Callable[[], Experiment]]]:
        device, dtype, inputs = self._cell.device, self._cell.dtype, run.sample.forward
        loaded: Any = run.loaded
        yield cause.BUDGET, lambda: self._budget(run)
        yield cause.TORCH, lambda: self._in_torch(run, cause.TORCH, "fp32")
        if dtype in ("fp16", "bf16"):
            yield cause.TORCH_DTYPE, lambda: self._in_torch(run, cause.TORCH_DTYPE, dtype)
        if device != CPU:
            yield cause.TIES, lambda: self._outputs(run, variants.run_with_ties_reversed(run.source, inputs), "fp32")
        if device.traits.exported:
            captured = variants.run_captured
            yield cause.ATTENTION, lambda: self._other_attention(run)
            yield cause.ALONE, lambda: self._outputs(run, variants.run_alone(loaded, dtype, inputs), dtype)
            yield cause.CAPTURED, lambda: self._outputs(run, captured(loaded, run.source, inputs), "fp32")
            yield cause.INTERPRETED, lambda: self._interpreted(run, loaded)
            yield cause.UNOPTIMISED, lambda: self._unoptimised(run, loaded)
        elif device.traits.torch_module:
            yield cause.ALONE, lambda: self._outputs(run, self._by_torch_alone(run), dtype)
            if device.compiler:
                yield cause.UNOPTIMISED, lambda: self._on(run, replace(self._cell, device=device.eager))
            elif device != CPU and not device.parallel:
                yield cause.UNOPTIMISED, lambda: self._plain(run)
        yield from self._of_cells(run)

    def _of_checks(self, run: CellRun, outcome: CheckOutcome) -> Iterator[tuple[str, Callable[[], Experiment]]]:
        """Yield experiments that run the check on other cells, or ask whether the model can be run at all."""
        if self._cell.device != CPU or self._cell.dtype != "fp32":
            yield cause.TORCH, lambda: self._run_check(replace(self._cell, device=CPU, dtype="fp32"))
        elif self._check in _OF_THE_CLASS:
            yield cause.TORCH, lambda: Experiment(cause.TORCH, DIFFERS, about="it is this cell")
        if outcome.stage == Stage.CONVERT:
            return
        if outcome.stage == Stage.COMPILE and self._cell.device.kind in ONNX_KINDS:
            yield cause.VALID, lambda: self._checked_graph(run)
        if self._cell.device.compiler:
            eager = replace(self._cell, device=self._cell.device.eager)
            yield cause.UNOPTIMISED, lambda: self._run_check(eager)
        yield from self._of_cells(run)

    def _of_cells(self, run: CellRun) -> Iterator[tuple[str, Callable[[], Experiment]]]:
        other = variants.cpu_device(self._cell.device)
        if other is None and self._cell.device.traits.torch_module and self._cell.device != CPU:
            other = CPU
        if other is not None:
            on_cpu = replace(self._cell, device=other)
            yield cause.CPU_DEVICE, lambda: self._on(run, on_cpu)
        if self._cell.dtype != "fp32" and self._cell.device != CPU:
            yield cause.IN_FP32, lambda: self._on(run, replace(self._cell, dtype="fp32"))

    def _try(self, name: str, make: Callable[[], Experiment]) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._found.append(Experiment(name, NOT_TRIED, about="the time was over"))
            return
        with _noted() as clock:
            try:
                found = make()
            except variants.NotPossible as reason:
                found = Experiment(name, NOT_POSSIBLE, about=str(reason))
            except Exception as error:  # whatever a way that nobody uses otherwise may raise
                found = Experiment(name, NOT_POSSIBLE, about=_short(error))
        self._found.append(replace(found, name=name, seconds=round(clock(), 3)))

    def _again(self, run: CellRun, outcome: CheckOutcome, has_outputs: bool) -> Experiment:
        text = f"{self._check} {outcome.status}: {first_line(outcome.reason)}"
        if not has_outputs:
            return Experiment(cause.AGAIN, DIFFERS, about=text)
        measured = _differences(run, run.outputs)
        self._seen = {each.leaf: each.rel_l2 for each in measured if not each.problem}
        found = self._outputs(run, run.outputs, self._cell.dtype)
        return replace(found, outcome=DIFFERS, about=text)

    def _known_product(self) -> Experiment:
        presence = confirm_device(self._cell.device, self._runner.backends)
        if presence is None:
            raise variants.NotPossible(f"{self._cell.device.kind} does not offer it")
        if presence.present:
            return Experiment(cause.PRODUCT, AGREES)
        return Experiment(cause.PRODUCT, DIFFERS, about=first_line(presence.reason))

    def _budget(self, run: CellRun) -> Experiment:
        budget = run.reference.budget_of(self._cell.dtype)
        if not budget.costs:
            raise variants.NotPossible(budget.reason or "rounding reaches no output with floating-point numbers")
        measured = [each for each in _differences(run, run.outputs) if each.problem or budget.costs.get(each.leaf)]
        allowed = {name: ALLOWED_FACTOR * each for name, each in budget.costs.items()}
        found = _worst(measured, allowed)
        if found.error is None or not found.finite:
            return found
        ratio = found.error / budget.costs[found.leaf]
        return replace(found, about=f"{ratio:.2g} times what {self._cell.dtype} must cost")

    def _in_torch(self, run: CellRun, name: str, dtype: str) -> Experiment:
        measured = run.reference.error_of(dtype)
        if not measured:
            raise variants.NotPossible(f"torch on the CPU does not run it in {dtype}")
        return replace(_worst(list(measured.values()), self._limits(run, dtype)), name=name)

    def _outputs(self, run: CellRun, outputs: Tensors, dtype: str) -> Experiment:
        """Compare what one way of running the model gave with the reference."""
        return _worst(_differences(run, outputs), self._limits(run, dtype))

    def _limits(self, run: CellRun, dtype: str) -> dict[str, float]:
        """Return the rel-L2 by output up to which it is right: four budgets.

        What is a hundredth of the failure's error, and within the tolerance of parity, is right, too.
        """
        tolerance = tolerance_of(replace(self._cell, dtype=dtype)).rel_l2
        costs = run.reference.budget_of(dtype).costs if dtype != "int8" else {}
        limits = {}
        for name in run.reference.real_outputs:
            budget = ALLOWED_FACTOR * costs[name] if costs.get(name) else tolerance
            seen = self._seen.get(name, 0.0)
            limits[name] = max(budget, min(_SHARE * seen, tolerance) if seen == seen else 0.0)
        return limits

    def _by_torch_alone(self, run: CellRun) -> Tensors:
        """Call transformers' model on the device directly."""
        device = self._cell.device
        if device.compiler or device.parallel:
            raise variants.NotPossible(f"pytest-hfaccel itself makes models {device.kind}")
        model = run.source.torch_model(self._cell.dtype, device.torch_name or "cpu")
        side = Side(model)
        with torch.inference_mode():
            outputs = flatten_outputs(model(**side.moved(dict(run.sample.forward), "")))
        return {name: leaf.cpu() for name, leaf in outputs.items()}

    def _other_attention(self, run: CellRun) -> Experiment:
        """Run the class in torch with `eager` attention, or with `sdpa` where it has that anyway."""
        model = run.source.torch_model("fp32")
        own = getattr(model.config, "_attn_implementation", None)
        other = "sdpa" if own == "eager" else "eager"
        try:
            model.set_attn_implementation(other)
        except (AttributeError, ImportError, ValueError) as error:
            raise variants.NotPossible(f"the class has no attention {other}") from error
        with torch.inference_mode():
            outputs = flatten_outputs(model(**Side(model).moved(dict(run.sample.forward), "")))
        return replace(self._outputs(run, outputs, "fp32"), about=f"{other} instead of {own}")

    def _interpreted(self, run: CellRun, loaded: Any) -> Experiment:
        outputs, borrowed = variants.run_interpreted(loaded, run.sample.forward)
        found = self._outputs(run, outputs, "fp32")
        if not borrowed:
            return found
        if found.outcome == AGREES:
            return replace(found, about=f"but for {borrowed}, which the runtime computed alone")
        raise variants.NotPossible(f"it differs, but nothing except the runtime computes {borrowed}")

    def _checked_graph(self, run: CellRun) -> Experiment:
        device = self._cell.device
        backend: Any = self._runner.backends.for_kind(device.kind)
        with backend.runtime_on(device) as runtime:
            problem = variants.problem_of_graph(runtime, device, run.source, run.sample.forward)
        return Experiment("", DIFFERS if problem else AGREES, about=problem[:300])

    def _unoptimised(self, run: CellRun, loaded: Any) -> Experiment:
        outputs = variants.run_unoptimised(loaded, self._cell.dtype, run.sample.forward)
        return replace(self._outputs(run, outputs, self._cell.dtype), about=variants.OFF[self._cell.device.kind])

    def _plain(self, run: CellRun) -> Experiment:
        with variants.plain_torch():
            found = self._outputs(run, run.loaded.forward(run.sample.forward), self._cell.dtype)
        return replace(found, about=variants.OFF["torch"])

    def _on(self, run: CellRun, cell: Cell) -> Experiment:
        """Run another cell of the model; compare its outputs, or run the check on it."""
        if self._check not in ABOUT_NUMBERS or not self._seen:
            return self._run_check(cell)
        other = self._runner.open(cell, self._module)
        try:
            found = self._outputs(run, other.outputs, cell.dtype)
        except HfAccelError as error:
            raise variants.NotPossible(f"{cell.device} {cell.dtype}: {_short(error)}") from error
        finally:
            other.close()
        return replace(found, about=f"{cell.device} {cell.dtype}")

    def _run_check(self, cell: Cell) -> Experiment:
        other = self._runner.open(cell, self._module)
        try:
            outcome = other.check(self._check)
        finally:
            other.close()
        about = f"{self._check} on {cell.device} {cell.dtype}: {outcome.status}"
        if outcome.status in (Status.PASSED, Status.XPASSED):
            return Experiment("", AGREES, about=about)
        if outcome.status.is_bad:
            return Experiment("", DIFFERS, about=f"{about}: {first_line(outcome.reason)}")
        return Experiment("", NOT_POSSIBLE, about=f"{about}: {first_line(outcome.reason)}")


def _differences(run: CellRun, outputs: Tensors) -> list[LeafDifference]:
    real, expected = real_positions(outputs, run.sample.forward), run.reference.real_outputs
    missing = [LeafDifference(name, problem="there is no such output") for name in expected if name not in real]
    return [*missing, *(difference(name, real[name], leaf) for name, leaf in expected.items() if name in real)]


def _worst(measured: list[LeafDifference], limits: Mapping[str, float]) -> Experiment:
    """Return the difference that is furthest beyond its limit, as an experiment without a name."""
    broken = next((each for each in measured if each.problem), None)
    if broken is not None:
        is_finite = not any(word in str(broken.problem) for word in ("NaN", "inf"))
        return Experiment("", DIFFERS, leaf=broken.leaf, about=f"{broken.leaf}: {broken.problem}", finite=is_finite)
    compared = [each for each in measured if limits.get(each.leaf)]
    if not compared:
        return Experiment("", AGREES, about="there are no numbers to compare")
    worst = max(compared, key=lambda each: each.rel_l2 / limits[each.leaf])
    limit = limits[worst.leaf]
    return Experiment("", AGREES if worst.rel_l2 <= limit else DIFFERS, worst.rel_l2, limit, worst.leaf)


def _has_outputs(run: CellRun) -> bool:
    try:
        return bool(run.outputs) and bool(run.reference.real_outputs)
    except Exception:
        return False


def _short(error: Exception) -> str:
    return error_line(error)[:300]


@contextmanager
def _noted() -> Iterator[Callable[[], float]]:
    """Give a clock that runs from here."""
    started = time.monotonic()
    yield lambda: time.monotonic() - started
