"""Whose doing a failure is, decided by experiments: the same computation again, with one thing changed.

`experiments.py` makes them; what follows from them is decided here, by a table that docs/explain.md states in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.results import MEANINGS, Cause

if TYPE_CHECKING:
    from pytest_hfaccel.explain import Explanation
    from pytest_hfaccel.explain.generation.calls import OwnCalls
    from pytest_hfaccel.explain.graphs import GraphExplanation
    from pytest_hfaccel.explain.leaks import LeakExplanation

AGREES, DIFFERS, NOT_POSSIBLE, NOT_TRIED = "agrees", "differs", "not possible", "not tried"
"""How an experiment ends. It agrees if the numbers are right (or the check passes, or nothing is raised)."""

AGAIN = "the cell again"
BUDGET = "error budget"
PRODUCT = "known product on the device"
TORCH = "torch on the CPU in fp32"
TORCH_DTYPE = "torch on the CPU at the cell's dtype"
ATTENTION = "torch on the CPU with another attention"
TIES = "torch on the CPU with ties the other way"
ALONE = "runtime without pytest-hfaccel"
CAPTURED = "captured program in torch"
VALID = "graph checked by onnx"
INTERPRETED = "graph without the runtime's kernels"
UNOPTIMISED = "optimisations off"
CPU_DEVICE = "CPU device of the same runtime"
IN_FP32 = "the same device in fp32"
OPERATOR = "first wrong node alone"
KERNEL = "first wrong operator of torch alone"
LEAK = "what stays after a run"
GENERATION = "the reference's generate beside its forward"


@dataclass(frozen=True)
class Experiment:
    """What one experiment found.

    Attributes:
        name: What was done; one of the constants above.
        outcome: `agrees`, `differs`, `not possible` or `not tried`.
        error: The relative L2 error of the output that is furthest beyond what is allowed; `None` without numbers.
        allowed: What that error may be.
        leaf: That output's name.
        about: What it was, or why it could not be made; one line.
        seconds: How long it took.
        finite: Whether all numbers were finite.
    """

    name: str
    outcome: str
    error: float | None = None
    allowed: float | None = None
    leaf: str = ""
    about: str = ""
    seconds: float = 0.0
    finite: bool = True

    def line(self) -> str:
        """Return it as a line of text."""
        numbers = ""
        if self.error is not None and self.allowed is not None:
            numbers = f"{self.leaf}: " if self.leaf else ""
            numbers += f"rel-L2 {self.error:.1e}, allowed {self.allowed:.1e}"
        return f"{self.name}: {self.outcome}" + "".join(f"; {part}" for part in (numbers, self.about) if part)


@dataclass(frozen=True)
class Verdict:
    """The cause of a failure, and what it rests on.

    Attributes:
        check: The check that failed.
        cause: One of `core.results.Cause`; empty where there is no failure to explain.
        because: The reason, one sentence.
        experiments: All that was tried, in order.
        is_failure: Whether the check fails, now as then.
    """

    check: str
    cause: str
    because: str
    experiments: Sequence[Experiment] = field(default_factory=tuple)
    is_failure: bool = True

    def lines(self) -> Iterator[str]:
        """Yield it as lines of text."""
        if self.cause:
            yield f"Cause: {self.cause} ({MEANINGS[Cause(self.cause)]}): {self.because}."
        else:
            yield f"Cause: {self.because}."
        yield from (f"  {each.line()}" for each in self.experiments)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        experiments = [asdict(each) for each in self.experiments]
        return {"check": self.check, "cause": self.cause, "because": self.because, "experiments": experiments}


Found = Mapping[str, Experiment]
Rule = tuple[Callable[["_Evidence"], bool], Cause, str]


class _Evidence:
    """The experiments by name, for rules to ask."""

    def __init__(self, experiments: Sequence[Experiment], dtype: str, is_exported: bool, is_converted: bool) -> None:
        self._found = {each.name: each for each in experiments}
        self.is_narrow = dtype in ("fp16", "bf16")
        self.is_exported, self.is_converted = is_exported, is_converted

    def agrees(self, name: str) -> bool:
        return name in self._found and self._found[name].outcome == AGREES

    def differs(self, name: str) -> bool:
        return name in self._found and self._found[name].outcome == DIFFERS

    def is_left_by(self, cause: Cause) -> bool:
        """Whether something stays after a run that this one's code allocated."""
        return self.differs(LEAK) and self._found[LEAK].leaf == cause

    def is_as_large(self, name: str) -> bool:
        """Whether an experiment's error is at least a tenth of the failure's: it can be all of it."""
        found, failure = self._found.get(name), self._found.get(AGAIN)
        if found is None or failure is None or found.error is None or failure.error is None:
            return False
        return found.finite and failure.finite and found.error >= failure.error / 10

    def overflows(self, name: str) -> bool:
        return self.differs(name) and not self._found[name].finite


RULES: tuple[Rule, ...] = (
    # Tensors and objects that stay are seen, whatever the process's memory does: it does not grow while a leak fits
    # into what was freed before.
    (
        lambda e: e.is_left_by(Cause.OURS),
        Cause.OURS,
        "what stays after a run was allocated by pytest-hfaccel's code",
    ),
    (
        lambda e: e.is_left_by(Cause.TRANSFORMERS),
        Cause.TRANSFORMERS,
        "what stays after a run was allocated by the class's code, or by what it calls",
    ),
    (
        lambda e: e.agrees(AGAIN),
        Cause.UNDECIDED,
        "the failure does not show again",
    ),
    (
        lambda e: e.differs(PRODUCT),
        Cause.DRIVER,
        "the device computes a known product of two matrices wrongly, or not at all",
    ),
    (
        lambda e: e.is_left_by(Cause.RUNTIME),
        Cause.RUNTIME,
        "what grows is memory of the runtime: no tensor and no object of Python stays after a run",
    ),
    (
        lambda e: e.agrees(BUDGET),
        Cause.NUMERICS,
        "the error is within what rounding to the dtype must cost this model on this input",
    ),
    (
        lambda e: e.is_narrow and e.overflows(TORCH_DTYPE) and e.agrees(TORCH),
        Cause.NUMERICS,
        "the model's numbers do not fit into the range of the dtype: torch on the CPU overflows as well",
    ),
    (
        lambda e: e.differs(KERNEL),
        Cause.RUNTIME,
        "an operator of torch gives a wrong output for its own inputs",
    ),
    (
        lambda e: e.differs(GENERATION) and not e.agrees(TORCH),
        Cause.TRANSFORMERS,
        "the class's own generate gives other logits than its forward, run by torch on the CPU",
    ),
    (
        lambda e: e.differs(TORCH),
        Cause.TRANSFORMERS,
        "the class itself, run by torch on the CPU, fails as well",
    ),
    (
        lambda e: e.differs(TORCH_DTYPE) and not e.overflows(TORCH_DTYPE),
        Cause.TRANSFORMERS,
        "the class itself, run by torch on the CPU at this dtype, is off by more than the dtype must cost",
    ),
    (
        lambda e: e.differs(ATTENTION),
        Cause.TRANSFORMERS,
        "the class itself, run by torch on the CPU, computes something else with another implementation of attention",
    ),
    (
        lambda e: e.differs(TIES) and e.is_as_large(TIES),
        Cause.TRANSFORMERS,
        "which of equal numbers the class takes first changes its outputs as much, and no runtime has to take torch's",
    ),
    (
        lambda e: e.agrees(ALONE),
        Cause.OURS,
        "the same model run without pytest-hfaccel is right",
    ),
    (
        lambda e: e.differs(CAPTURED),
        Cause.EXPORTER,
        "the program that torch.export captured is another than the model",
    ),
    (
        lambda e: e.differs(VALID),
        Cause.EXPORTER,
        "the graph is not valid ONNX, whoever reads it",
    ),
    (
        lambda e: e.differs(INTERPRETED),
        Cause.EXPORTER,
        "the graph computes something else than the model, whoever runs it",
    ),
    (
        lambda e: e.agrees(UNOPTIMISED),
        Cause.RUNTIME,
        "with the runtime's optimisations off it is right",
    ),
    (
        lambda e: e.agrees(CPU_DEVICE),
        Cause.RUNTIME,
        "the CPU device of the same runtime is right: it is what the runtime does on this device",
    ),
    (
        lambda e: e.is_narrow and e.agrees(IN_FP32),
        Cause.RUNTIME,
        "the same graph in fp32 is right: at this dtype the runtime is off by more than the dtype must cost",
    ),
    (
        lambda e: e.agrees(INTERPRETED),
        Cause.RUNTIME,
        "the graph is right: without the runtime's kernels it gives the model's numbers",
    ),
    (
        lambda e: e.differs(OPERATOR),
        Cause.RUNTIME,
        "a node of the graph gives a wrong output for its own inputs",
    ),
    (
        lambda e: e.agrees(OPERATOR),
        Cause.EXPORTER,
        "the runtime computes the first wrong node rightly: the graph is another than the model",
    ),
    (
        lambda e: not e.is_exported and e.agrees(TORCH),
        Cause.RUNTIME,
        "torch on the CPU is right: it is what the runtime does on this device",
    ),
    (
        lambda e: e.agrees(VALID) and e.agrees(TORCH),
        Cause.RUNTIME,
        "the graph is valid ONNX, and the runtime does not take it",
    ),
    (
        lambda e: not e.is_converted and e.agrees(TORCH),
        Cause.EXPORTER,
        "torch on the CPU runs the class, and its conversion fails",
    ),
)
"""The first rule that holds decides."""


def decide(
    check: str,
    experiments: Sequence[Experiment],
    dtype: str,
    *,
    is_exported: bool = True,
    is_converted: bool = True,
) -> Verdict:
    """Return the cause that follows from experiments.

    Args:
        check: The check that failed.
        experiments: What was tried.
        dtype: The cell's dtype.
        is_exported: Whether the cell's device runs a converted graph.
        is_converted: False where it could not be converted.
    """
    evidence = _Evidence(experiments, dtype, is_exported, is_converted)
    for holds, cause, because in RULES:
        if holds(evidence):
            is_failure = cause != Cause.UNDECIDED or not evidence.agrees(AGAIN)
            return Verdict(check, cause, because, tuple(experiments), is_failure)
    tried = [each.name for each in experiments if each.outcome in (AGREES, DIFFERS)]
    because = f"none of the experiments tells; tried: {', '.join(tried) or 'none'}"
    return Verdict(check, Cause.UNDECIDED, because, tuple(experiments))


def kernel_alone(found: Explanation) -> Experiment | None:
    """Return what is known of the first wrong operator of a torch model, run with its own inputs in fp64.

    `None` where it is right, and where it computes at another dtype than the model: that is the class's choice.
    """
    operator, guilty = found.operator, found.guilty
    if operator is None or guilty is None or operator.own_error is None or operator.dtype != found.dtype:
        return None
    if operator.own_error <= guilty.budget:
        return None
    return Experiment(KERNEL, DIFFERS, operator.own_error, guilty.budget, about=operator.operator)


def leak_of(found: LeakExplanation) -> Experiment | None:
    """Return whose code allocated what stays after a run; `None` where nothing is known to stay."""
    if found.cause is None:
        return None
    first = next(iter(found.lines()))
    return Experiment(LEAK, DIFFERS, leaf=found.cause, about=found.sites[0].place if found.sites else first)


def own_generation(found: OwnCalls) -> Experiment | None:
    """Return what is known of the class's own `generate`, run by torch on the CPU; `None` where nothing is."""
    from pytest_hfaccel.explain.generation.calls import SAME_LOGITS

    if found.others:
        first = found.others[0]
        about = "; ".join(f"{each.way}, token {each.step}" for each in found.others)
        return Experiment(GENERATION, DIFFERS, first.error, SAME_LOGITS, "logits", about)
    if found.right:
        return Experiment(GENERATION, AGREES, about=" and ".join(found.right))
    return Experiment(GENERATION, NOT_POSSIBLE, about=found.problem) if found.problem else None


def node_alone(found: GraphExplanation) -> Experiment | None:
    """Return what is known of the first wrong node of a graph: whether the runtime computes it wrongly."""
    node = found.guilty
    if node is None:
        return None
    about = f"{node.operator} {node.node}"
    if node.own_error is None:
        return Experiment(OPERATOR, NOT_POSSIBLE, about=about)
    return Experiment(
        OPERATOR, DIFFERS if node.place == "runtime" else AGREES, node.own_error, node.budget, about=about
    )
