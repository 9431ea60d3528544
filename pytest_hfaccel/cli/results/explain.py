"""`hfaccel explain`: where a model on a device leaves the reference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.cli.results.cell_argument import Target, add_cell_arguments, target_of
from pytest_hfaccel.core.errors import (
    CheckpointError,
    ConfigError,
    HfAccelError,
    LoadError,
    NotWhatTheFilesHold,
    error_line,
    first_line,
    line_of_transformers,
)
from pytest_hfaccel.core.results import Cause, CheckOutcome, Stage

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.explain.cause import Experiment, Verdict


_CONVERSION: dict[str, str] = {Stage.CONVERT: "converted", Stage.COMPILE: "compiled"}
"""The stages between a torch model and a graph that can run, and what fails in them."""


def add_parser(commands: Any) -> None:
    """Add `explain` to the parsers of `hfaccel`."""
    text = (
        "Run a model beside its fp64 reference, module by module and then operator by operator, and name the first "
        "that adds an error. On ONNX Runtime and OpenVINO this goes node by node through the graph. Name a cell of an "
        "earlier run, or a model and a device. Exit code 1: an error was found."
    )
    parser = commands.add_parser("explain", help="find the module and the operator that are wrong", description=text)
    add_cell_arguments(parser)
    text = "write a script that shows the error with torch or the runtime alone to this directory"
    parser.add_argument("--script", type=Path, metavar="DIR", help=text)
    text = "print a report for the project at fault: Markdown without anything private"
    parser.add_argument("--issue", action="store_true", help=text)
    text = "begin no further experiment after so many seconds (default: no limit)"
    parser.add_argument("--seconds", type=float, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.registry.resolution import resolve_model
    from pytest_hfaccel.upstream.transformers import quiet

    if arguments.issue and arguments.json:
        raise ConfigError("--issue prints Markdown, --json prints JSON: leave one out.")
    target = target_of(arguments)
    session = Session(RunConfig.from_values(target.values))
    try:
        with quiet:
            specs = [replace(spec, expect=()) for spec in resolve_model(target.values["models"][0], session.registry)]
            cell = session.plan.cells(specs, session.store)[0]
            with TemporaryDirectory(prefix="hfaccel-") as folder:
                scripts = arguments.script or (Path(folder) if arguments.issue else None)
                answer = _answer(session, cell, target, scripts, arguments.seconds)
                issue = _issue(cell, target, answer) if arguments.issue else ""
    finally:
        session.close()
    if issue:
        print(issue)
    elif arguments.json:
        print_json({"cell": cell.id, "run": target.run, **answer.json})
    else:
        print("\n".join([cell.id, *target.lines(), *answer.lines]))
    return int(answer.is_wrong)


@dataclass
class _Answer:
    """What was found.

    Attributes:
        lines: For readers.
        json: For programs.
        is_wrong: Whether anything is.
        verdict: The cause; `None` where there is no failure.
        script: A script that shows the error without us; `None` where there is none.
        printed: What it printed.
        divergence: Those of the lines that say where.
    """

    lines: list[str]
    json: dict[str, Any]
    is_wrong: bool
    verdict: Verdict | None = None
    script: Path | None = None
    printed: str = ""
    divergence: tuple[str, ...] = ()

    def add_script(self, script: Path | None, about: str) -> None:
        """Add a script and what it printed, or why there is none; nothing where none was asked for."""
        self.script, self.printed = script, about
        self.json |= {"script": script and str(script), "reproduction": about}
        self.lines += [f"Reproduction: {script}: {about}" if script else f"Reproduction: {about}"] if about else []


def _issue(cell: Cell, target: Target, answer: _Answer) -> str:
    from pytest_hfaccel.explain.cause import AGAIN
    from pytest_hfaccel.explain.upstream_issue import Finding, write_issue

    if answer.verdict is None or not answer.verdict.is_failure:
        raise ConfigError(
            f"{cell.id}: there is nothing to report: no check of it fails now.",
            hint="Without --issue, explain says what was tried.",
        )
    failures = target.failures()
    again = next((each.about for each in answer.verdict.experiments if each.name == AGAIN), "")
    reason = again or first_line(failures[0].reason)
    return write_issue(Finding(cell, reason, answer.verdict, answer.divergence, answer.script, answer.printed))


def _answer(session: Session, cell: Cell, target: Target, scripts: Path | None, seconds: float | None) -> _Answer:
    """Find the first divergence, where the device lets, and then the cause."""
    from pytest_hfaccel.explain.graphs import why_unreadable
    from pytest_hfaccel.registry.installed import unknown_architectures

    problems = unknown_architectures([cell.model]) if not cell.model.requires_remote_code else []
    if problems and not target.record:
        return _unknown_class(cell, problems[0])

    failures = target.failures()
    known: list[Experiment | None] = []
    ended_at = failures[0].stage if failures else ""
    why = "the model did not get as far as its outputs" if _ended_before_run(failures) else ""
    why = why or ("" if cell.device.traits.torch_module else why_unreadable(cell.device))
    if not why:
        try:
            answer, operator = (_in_torch if cell.device.traits.torch_module else _in_graph)(session, cell, scripts)
            known.append(operator)
            answer.divergence = tuple(line for line in answer.lines if not line.startswith("Reproduction:"))
        except LoadError as error:
            if error.stage not in _CONVERSION:
                return _not_loaded(cell, error)
            why, ended_at = f"the model cannot be {_CONVERSION[error.stage]}", error.stage
        except CheckpointError as error:
            return _not_loaded(cell, error)
        except HfAccelError:
            raise
        except Exception as error:  # whatever a model that fails may raise where it is looked at
            why = error_line(error)
    if why:
        answer = _Answer([f"First divergence: not looked for: {why}."], {"first_divergence": why}, bool(failures))
        if ended_at in _CONVERSION:
            _add_conversion(session, cell, answer, seconds, compiles=ended_at == Stage.COMPILE)
    if any(each.name == "generation" for each in failures) or not (target.record or answer.is_wrong or why):
        known.append(_add_generation(session, cell, answer))
    if any(each.name == "memory" for each in failures):
        known.append(_add_leak(session, cell, answer))
    if not failures and not answer.is_wrong and (target.record or not why):
        return answer
    from pytest_hfaccel.explain.experiments import Examination

    check = failures[0].name if failures else "generation" if "generation" in answer.json else "parity"
    module = target.record.module if target.record else ""
    verdict = Examination(session.runner, cell, check, module, seconds).verdict(list(filter(None, known)))
    answer.verdict = verdict
    answer.lines += verdict.lines()
    answer.json["divergence"] = list(answer.divergence)
    answer.json["cause"] = verdict.to_json()
    answer.is_wrong = answer.is_wrong or verdict.is_failure
    return answer


def _unknown_class(cell: Cell, problem: str) -> _Answer:
    """Explain a class that the installed transformers does not export; one of its own mappings may name it."""
    from pytest_hfaccel.explain.cause import Verdict

    is_theirs = "/" in cell.model.name and cell.model.source.startswith("transformers")
    cause = Cause.TRANSFORMERS if is_theirs else Cause.UNDECIDED
    because = "an auto mapping of its own names a class that it does not have" if is_theirs else problem
    verdict = Verdict("resolves", cause, because)
    found = (f"Class: {problem}",)
    json = {"unknown_class": problem, "divergence": list(found), "cause": verdict.to_json()}
    return _Answer([*found, *verdict.lines()], json, True, verdict, divergence=found)


def _not_loaded(cell: Cell, error: HfAccelError) -> _Answer:
    """Explain why a model cannot be loaded, where that is the class's doing on every device.

    Files that the class itself has written are sound: what fails when they are read is its code.

    Raises:
        HfAccelError: The same error, where it is not known to be.
    """
    from pytest_hfaccel.core.spec import Weights
    from pytest_hfaccel.explain.cause import Verdict

    place = line_of_transformers(error)
    if isinstance(error, NotWhatTheFilesHold):
        because = "its from_pretrained does not make of the files what they hold, before any device has a part in it"
    elif place and (error.cause == Cause.TRANSFORMERS or (cell.weights.kind != Weights.PRETRAINED and not error.cause)):
        because = "its own code fails while it is built or loaded, before any device has a part in it"
    else:
        raise error
    found = (f"Loading: {error}", *([f"  at {place}"] if place else []))
    verdict = Verdict("from_pretrained", Cause.TRANSFORMERS, because)
    about = {"error": str(error), "place": place}
    json = {"loading": about, "divergence": list(found), "cause": verdict.to_json()}
    return _Answer([*found, *verdict.lines()], json, True, verdict, divergence=found)


def _in_torch(session: Session, cell: Cell, scripts: Path | None) -> tuple[_Answer, Experiment | None]:
    """Find the first module and operator of a torch model."""
    from pytest_hfaccel.explain import explain
    from pytest_hfaccel.explain.cause import kernel_alone
    from pytest_hfaccel.explain.reproduction import write_reproduction
    from pytest_hfaccel.numerics.tolerances import tolerance_of

    run = session.runner.open(cell)
    try:
        model, source = run.loaded.pipeline_model(), run.source
        exact, inputs = source.torch_model("fp64"), source.sample().forward
        found = explain(model, exact, source.torch_model(cell.dtype), inputs)
        is_off = not found.error <= tolerance_of(cell).rel_l2
        if is_off and found.guilty is None:
            # Torch on the CPU is off as well, so that it excuses each module: ask again without it.
            found = explain(model, exact, exact, inputs)
    finally:
        run.close()
    answer = _Answer(list(found.lines()), found.to_json(), is_off or found.guilty is not None)
    script, about = None, ""
    if scripts and found.guilty is not None:
        script, about = write_reproduction(found, scripts, cell.id)
    answer.add_script(script, about)
    return answer, kernel_alone(found)


def _in_graph(session: Session, cell: Cell, scripts: Path | None) -> tuple[_Answer, Experiment | None]:
    """Find the first node of a converted graph."""
    from pytest_hfaccel.explain.cause import node_alone
    from pytest_hfaccel.explain.graphs import explain_loaded
    from pytest_hfaccel.explain.reproduction import write_graph_reproduction

    run = session.runner.open(cell)
    script, about = None, ""
    try:
        found, graph = explain_loaded(run.loaded, run.source, cell.device, cell.dtype)
        if scripts and found.guilty is not None:
            script, about = write_graph_reproduction(found, graph, scripts, cell.id)
    finally:
        run.close()
    answer = _Answer(list(found.lines()), found.to_json(), found.error > found.budget)
    answer.add_script(script, about)
    return answer, node_alone(found)


def _add_generation(session: Session, cell: Cell, answer: _Answer) -> Experiment | None:
    """Find the first token that differs; return what the class itself, in torch on the CPU, says of it."""
    from pytest_hfaccel.core.tasks import generates
    from pytest_hfaccel.explain.cause import own_generation
    from pytest_hfaccel.explain.generation import NEW_TOKENS, explain_generation, with_module
    from pytest_hfaccel.explain.generation.calls import compare_own_calls
    from pytest_hfaccel.numerics.tolerances import tolerance_of

    if not generates(cell.model):
        return None
    run = session.runner.open(cell)
    try:
        inputs = run.sample.generate
        if inputs is None:
            return None
        expected = run.reference.continuation(NEW_TOKENS)
        reference = run.source.torch_model(run.reference.dtype)
        found = explain_generation(run.loaded, inputs, expected, tolerance_of(cell).rel_l2)
        if found.is_wrong and cell.device.traits.torch_module:
            found = with_module(found, run.loaded, reference, inputs)
        own = compare_own_calls(reference, inputs, NEW_TOKENS)
        if own.problem:  # code that is not used otherwise may not run in fp64
            own = compare_own_calls(run.source.torch_model("fp32"), inputs, NEW_TOKENS)
        found = replace(found, own_calls=own)
    except Exception as error:  # whatever a model that fails may raise
        answer.lines.append(f"Generation was not looked at: {error_line(error)}")
        return None
    finally:
        run.close()
    answer.lines += found.lines()
    answer.divergence += tuple(found.lines()) if found.is_wrong else ()
    answer.json["generation"] = found.to_json()
    answer.is_wrong = answer.is_wrong or found.is_wrong
    return own_generation(own)


def _add_leak(session: Session, cell: Cell, answer: _Answer) -> Experiment | None:
    """Find the lines whose allocations stay after a run; return whose code they are."""
    from pytest_hfaccel.explain.cause import leak_of
    from pytest_hfaccel.explain.leaks import find_leak

    run = session.runner.open(cell)
    try:
        found = find_leak(run.loaded, run.sample.forward)
    except Exception as error:  # whatever a model that fails may raise
        answer.lines.append(f"Leaks were not looked for: {error_line(error)}")
        return None
    finally:
        run.close()
    lines = list(found.lines())
    answer.lines += lines
    answer.divergence = (*lines, *answer.divergence)
    answer.json["leak"] = found.to_json()
    answer.is_wrong = answer.is_wrong or found.cause is not None
    return leak_of(found)


def _add_conversion(session: Session, cell: Cell, answer: _Answer, seconds: float | None, *, compiles: bool) -> None:
    """Add the smallest part of the model that cannot be converted or, where that succeeds, compiled."""
    runtime_on = getattr(session.backends.for_kind(cell.device.kind), "runtime_on", None)
    if runtime_on is None:
        return
    from pytest_hfaccel.backends.exported.failing_part import find_failing_part

    run = session.runner.open(cell)
    try:
        model, inputs = run.source.torch_model("fp32"), run.source.sample().forward
        with runtime_on(cell.device) as runtime:
            found = find_failing_part(runtime, model, inputs, seconds, device=cell.device if compiles else None)
    finally:
        run.close()
    answer.lines += found.lines()
    answer.json["conversion"] = found.to_json()
    if found.smallest is not None:
        answer.is_wrong, answer.divergence = True, tuple(found.lines())


def _ended_before_run(failures: Sequence[CheckOutcome]) -> bool:
    return bool(failures) and failures[0].stage in (Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE)
