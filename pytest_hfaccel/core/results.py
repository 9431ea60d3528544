"""What happened: statuses, stages, the outcome of a check and the record of a cell.

Everything here is plain data that survives JSON in both directions, because it crosses process boundaries
(pytest-xdist), is written to disk line by line and is read back by reports, database and predictor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pytest_hfaccel.core.devices import kind_named, kind_of

SCHEMA_VERSION = 1
"""Version of the JSON written by reports and journal; raised when a reader would have to change."""

TWIN, BLIND_TO = "twin", "blind_to"
"""Measures of the check `canary`: how the model was run at the next lower precision, and the name of that precision if
parity would not notice it."""

NOT_REACHED = "the model did not get this far"
"""How a check refers to a failure that another check of the cell has reported."""

CellKey = tuple[str, str]
"""Model class module and cell id: what a run has one record of."""


class Status(StrEnum):
    """How a check or a cell ended."""

    PASSED = "passed"
    FAILED = "failed"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    SKIPPED = "skipped"
    ERROR = "error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    UNAVAILABLE = "unavailable"
    GATED = "gated"
    HUB_ERROR = "hub_error"
    INFRA_ERROR = "infra_error"
    """The machine, not the model: a full disk, a driver that does not answer, a wrong product (`hardware.health`)."""
    INCOMPLETE = "incomplete"
    """The run ended (Ctrl-C, `-x`, no worker left) before all selected checks of the cell ran."""

    @property
    def rank(self) -> int:
        """Place among the statuses, the worst one first."""
        return _WORST_FIRST.index(self)

    @property
    def is_bad(self) -> bool:
        """Whether this status fails the run."""
        return self not in _GOOD


_GOOD = frozenset({Status.PASSED, Status.XFAILED, Status.SKIPPED, Status.UNAVAILABLE, Status.INCOMPLETE})

# A cell has one status: the first of these that one of its checks has.
_WORST_FIRST = (
    *(
        Status.INFRA_ERROR,
        Status.CRASHED,
        Status.TIMEOUT,
        Status.OUT_OF_MEMORY,
        Status.ERROR,
        Status.HUB_ERROR,
        Status.GATED,
    ),
    *(Status.FAILED, Status.XPASSED, Status.INCOMPLETE, Status.UNAVAILABLE, Status.XFAILED),
    *(Status.PASSED, Status.SKIPPED),
)


class Ended(StrEnum):
    """How a run ended, or that it has not."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """Ctrl-C, SIGTERM, `-x`, an error of pytest's: not everything that was selected has run."""
    RUNNING = "running"
    """The state of a run before its end, and forever if it was killed."""


class Stage(StrEnum):
    """Where in a cell's life something happened, in order."""

    RESOLVE = "resolve"
    LOAD = "load"
    CONVERT = "convert"
    COMPILE = "compile"
    RUN = "run"
    COMPARE = "compare"


class Cause(StrEnum):
    """Component responsible for a failure."""

    PACKAGE = "package"
    """A package that is not installed."""
    TINY_CHECKPOINT = "factory"
    """This package: a tiny checkpoint, or inputs, that the class cannot work with."""
    TRANSFORMERS = "transformers"
    """The class's own code."""
    EXPORTER = "exporter"
    """The conversion from torch to the runtime."""
    RUNTIME = "runtime"
    """The runtime that compiles and runs the converted model."""
    TIME = "time"
    """The time limit."""
    OURS = "ours"
    """This package: what it makes of inputs, outputs or precisions around the runtime."""
    DRIVER = "driver"
    """The device or its driver: it computes a known product wrongly."""
    NUMERICS = "numerics"
    """Nobody: the error is within what rounding to the dtype must cost the model."""
    UNDECIDED = "undecided"
    """Experiments were made (see `hfaccel explain`), and they do not tell."""


MEANINGS: dict[Cause, str] = {
    Cause.PACKAGE: "a package that is not installed",
    Cause.TINY_CHECKPOINT: "our tiny checkpoint or its inputs",
    Cause.OURS: "pytest-hfaccel itself, around the runtime",
    Cause.TRANSFORMERS: "the class's own code",
    Cause.EXPORTER: "the conversion from torch to the runtime",
    Cause.RUNTIME: "the runtime that runs the converted model",
    Cause.DRIVER: "the device or its driver",
    Cause.NUMERICS: "rounding: the error is within what the dtype must cost",
    Cause.UNDECIDED: "experiments do not tell",
    Cause.TIME: "stopped at the time limit",
}


@dataclass
class CheckOutcome:
    """The verdict of one check on one cell, with the numbers it rests on.

    Attributes:
        name: The check's registered name, e.g. `parity`.
        status: How it ended.
        stage: Where it ended, when it did not pass.
        reason: One line (a summary) or several (a diff): why it did not pass.
        measures: JSON values measured on the way; also recorded when the check passes. Keys name their unit
            (`seconds`, `bytes`, `rel_l2`).
        seconds: Wall-clock seconds the check took, without loading the model.
        cause: The component responsible, where the failure or the registry's entry says it: one of `Cause`.
    """

    name: str
    status: Status = Status.PASSED
    stage: Stage | None = None
    reason: str | None = None
    measures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CheckOutcome:
        """Rebuild an outcome from what `to_json` returned."""
        stage, measures = data.get("stage"), data.get("measures", {})
        cause = data.get("cause") or measures.get("cause", "")  # in reports of older versions
        return cls(
            **{**data, "status": Status(data["status"]), "stage": Stage(stage) if stage else None, "cause": cause}
        )


def cause_of(outcome: CheckOutcome, device: str) -> Cause:
    """Return the cause of an outcome that is not a pass.

    It is what the failure, or the registry's entry, says. Else the stage decides: what goes wrong in eager torch is
    due to the class itself, what goes wrong after conversion to the runtime.
    """
    if outcome.cause:
        return Cause(outcome.cause)
    if outcome.status == Status.TIMEOUT:
        return Cause.TIME
    if device == "class" or not kind_named(kind_of(device)).traits.exported:
        return Cause.TRANSFORMERS
    return Cause.EXPORTER if outcome.stage in (Stage.CONVERT, Stage.LOAD) else Cause.RUNTIME


_BLAMED = frozenset({Status.FAILED, Status.ERROR, Status.CRASHED, Status.OUT_OF_MEMORY, Status.TIMEOUT})


def error_in_budgets(measures: Mapping[str, Any]) -> float | None:
    """Return the error of `parity` in multiples of what rounding must cost: the largest one of its inputs.

    `None` where there is no budget. The measures may be those of a third party's check.
    """
    budget, inputs = measures.get("budget"), measures.get("samples")
    found = [budget.get("ratio")] if isinstance(budget, Mapping) else []
    if isinstance(inputs, Mapping) and isinstance(inputs.get("ratios"), Mapping):
        found += inputs["ratios"].values()
    return max((each for each in map(_as_number, found) if each is not None), default=None)


def smallest_noticed_fault(measures: Mapping[str, Any]) -> float | None:
    """Return how far the smallest wrong weight that `canary` noticed moves the outputs, as rel-L2; see `--hf-power`."""
    power = measures.get("power")
    return _as_number(power.get("rel_l2")) if isinstance(power, Mapping) else None


def _as_number(value: Any) -> float | None:
    """Return a measure that is a finite number; one of a third party's check may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def blame(outcome: CheckOutcome, device: str) -> str:
    """Return the cause as a failure's first line has it.

    `numerics` where it is known, `probably runtime` where only the stage says so. Before `convert` no stage does, and
    wrong numbers of an exported graph may be those of the conversion or of the runtime.

    Returns:
        Empty where nobody is to blame, or the status says all.
    """
    if outcome.status not in _BLAMED or NOT_REACHED in (outcome.reason or ""):
        return ""
    if outcome.cause:
        return outcome.cause
    if outcome.status not in (Status.FAILED, Status.ERROR) or outcome.stage in (None, Stage.RESOLVE, Stage.LOAD):
        return ""
    cause = cause_of(outcome, device)
    if cause == Cause.RUNTIME and outcome.stage in (Stage.RUN, Stage.COMPARE):
        return f"probably {Cause.EXPORTER} or {Cause.RUNTIME}"
    if cause == Cause.TRANSFORMERS and device not in ("class", "cpu"):
        return f"probably {Cause.RUNTIME} or {Cause.DRIVER}"
    return f"probably {cause}"


def headline(outcome: CheckOutcome, device: str) -> str:
    """Return a failure with its cause in front: `numerics: parity failed at stage compare: logits: rel-L2 ...`."""
    text = f"{outcome.status} at stage {outcome.stage}: {outcome.reason}"
    cause = blame(outcome, device)
    return f"{cause}: {outcome.name} {text}" if cause else text


@dataclass(frozen=True)
class Nodes:
    """Where the nodes of a converted graph ran; empty for models that are not converted.

    Attributes:
        by_provider: Execution provider (or partition) -> number of nodes, as the runtime names it.
        not_taken: Operator -> number of the nodes that the asked device left to the CPU.
    """

    by_provider: dict[str, int] = field(default_factory=dict)
    not_taken: dict[str, int] = field(default_factory=dict)


def nodes_of(placement: Mapping[str, Any]) -> Nodes:
    """Return where the nodes ran, from the placement of a cell's record, whichever backend wrote it."""
    details = placement.get("details") or {}
    fallback = details.get("cpu_fallback") or {}
    not_taken = details.get("not_taken") or details.get("nodes_on_cpu") or fallback.get("operators") or {}
    nodes = details.get("nodes")
    return Nodes(dict(nodes) if isinstance(nodes, Mapping) else {}, dict(not_taken))


@dataclass
class CellResult:
    """The record of what happened to one cell; the unit of journal, reports and database.

    Attributes:
        cell: The cell's stable id, e.g. `gpt2-cuda0-fp16`.
        model: Registry name, hub id or directory as the user wrote it.
        architecture: transformers class name.
        module: Model class module without prefix, e.g. `bert` for `test_hf_bert.py`.
        task: Task name of the model, e.g. `fill-mask`.
        device: Requested device id, e.g. `openvino:CPU`; `class` for the checks that run once per model.
        dtype: Requested dtype.
        weights: `pretrained`, `random` or `tiny`.
        weights_reason: Why these weights ran.
        implementation: `real`, `emulated` or `unavailable`.
        placement: What the backend reported: actual devices, effective precision (see `backends.base.Placement`).
        timings: Seconds per stage (`load`, `convert`, `compile`), measured once per load.
        checks: The outcomes, in the order in which they ran.
        incomplete: Whether some of the selected checks have not run.
        decided_by: Hashes of everything that decides the outcomes: `checkpoint`, `versions`, ...
        from_run: The earlier run that ran the cell, if a resumed run took its record over; else empty.
    """

    cell: str
    model: str
    architecture: str
    module: str
    task: str
    device: str
    dtype: str
    weights: str
    weights_reason: str = ""
    implementation: str = "real"
    placement: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    checks: list[CheckOutcome] = field(default_factory=list)
    incomplete: bool = False
    decided_by: dict[str, str] = field(default_factory=dict)
    from_run: str = ""

    @property
    def key(self) -> CellKey:
        """The key of a record within a run: the module and the cell."""
        return (self.module, self.cell)

    @property
    def is_finished(self) -> bool:
        """Whether the record says all that was asked for: every check ran, on a machine that works."""
        return not self.incomplete and self.status != Status.INFRA_ERROR

    @property
    def status(self) -> Status:
        """The worst status among the checks; `incomplete` if some never ran."""
        found = {check.status for check in self.checks}
        if self.incomplete:
            found.add(Status.INCOMPLETE)
        return next((status for status in _WORST_FIRST if status in found), Status.SKIPPED)

    def _repr_html_(self) -> str:
        """Return the checks as a table, for a notebook."""
        rows = [
            (check.name, str(check.status), str(check.stage or ""), f"{check.seconds:.3f}", check.reason or "")
            for check in self.checks
        ]
        return html_table(f"{self.cell}: {self.status}", ("check", "status", "stage", "seconds", "reason"), rows)

    @property
    def stage(self) -> Stage | None:
        """The stage of the check that decided the status."""
        return next((check.stage for check in self.checks if check.status == self.status), None)

    @property
    def reason(self) -> str | None:
        """The reason of the check that decided the status."""
        return next((check.reason for check in self.checks if check.status == self.status), None)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form, with `status`, `stage` and `reason` spelled out."""
        return {**asdict(self), "status": self.status, "stage": self.stage, "reason": self.reason}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CellResult:
        """Rebuild a result from what `to_json` returned."""
        derived = ("status", "stage", "reason")
        fields = {key: value for key, value in data.items() if key not in derived}
        return cls(**{**fields, "checks": [CheckOutcome.from_json(check) for check in data["checks"]]})


def html_table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a plain HTML table; nothing in it is taken for markup."""
    from html import escape

    heads = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
