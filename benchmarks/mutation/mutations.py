"""Sixty ways to break this package: small patches of its source, each of which something has to notice.

A patch is a text that stands exactly once in its file, or in the file that the code has moved to, and what takes its
place. Where it does not any more, the run ends with an error: the mutation has to follow the code, or nobody knows what
its survival would mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = "pytest_hfaccel"


class DoesNotApply(Exception):
    """The text to be replaced does not stand exactly once in the file."""


@dataclass(frozen=True)
class Mutation:
    """A patch.

    Attributes:
        area: What it breaks, in a word.
        name: What is wrong then.
        file: The file, below the package.
        old: The text that is replaced.
        new: What takes its place.
        tests: The tests that are about the file, by the name of theirs; perhaps one of it. Unit tests, or those of a
            fault where it is the plugin's.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def place(self, tree: Path) -> Path:
        """Return the file that is patched: the one named, or the only other one in which the text stands once.

        Args:
            tree: The directory in which the package lies.

        Raises:
            DoesNotApply: It has to be brought up to date.
        """
        package = tree / PACKAGE
        named = package / self.file
        if named.is_file() and named.read_text(encoding="utf-8").count(self.old) == 1:
            return named
        moved = [path for path in package.rglob("*.py") if path.read_text(encoding="utf-8").count(self.old) == 1]
        if len(moved) == 1:
            return moved[0]
        where = f"benchmarks/mutation/mutations.py, {self.name!r}"
        raise DoesNotApply(
            f"{where}: {self.old!r} stands not once in {PACKAGE}/{self.file}, and once in {len(moved)} other files: "
            "bring it up to date"
        )

    def paths_of_tests(self, tree: Path) -> list[str]:
        """Return the tests as pytest takes them.

        Args:
            tree: The directory in which the tests lie.

        Raises:
            DoesNotApply: There is no such file, or there are several.
        """
        found = []
        for test in self.tests:
            name, *nodes = test.split("::")
            places = sorted((tree / "tests").rglob(name))
            if len(places) != 1:
                raise DoesNotApply(f"benchmarks/mutation/mutations.py, {self.name!r}: {len(places)} tests named {name}")
            found.append("::".join([places[0].relative_to(tree).as_posix(), *nodes]))
        return found


def _in(area: str, file: str, tests: str, *patches: tuple[str, str, str]) -> list[Mutation]:
    return [Mutation(area, name, file, old, new, tuple(tests.split())) for name, old, new in patches]


_WRONG_MODELS = "test_checks_wrong_models.py"

MUTATIONS: tuple[Mutation, ...] = (
    *_in(
        "tolerances",
        "numerics/tolerances.py",
        f"test_numerics_tolerances.py {_WRONG_MODELS}",
        ("fp32 passes at a thousandfold", "_FP32_TINY = Tolerance(rel_l2=1e-5", "_FP32_TINY = Tolerance(rel_l2=1e-2"),
        (
            "fp16 passes at a thousandfold",
            "_FP16 = Tolerance(rel_l2=5e-3, rtol=5e-3",
            "_FP16 = Tolerance(rel_l2=5.0, rtol=5.0",
        ),
        (
            "the second chance of fp32 has no end",
            "SECOND_CHANCE_CEILING_FP32 = 5.0",
            "SECOND_CHANCE_CEILING_FP32 = 5e6",
        ),
        ("two runs may be any distance apart", "_BETWEEN_RUNS = 3.0", "_BETWEEN_RUNS = 3e6"),
    ),
    *_in(
        "comparator",
        "numerics/compare.py",
        f"test_numerics_compare.py {_WRONG_MODELS}",
        ("a rel-L2 of NaN passes", "if not excess <= 1.0:  # also when it is NaN", "if excess > 1.0:"),
        (
            "a missing output passes",
            "not self.verdicts or bool(self.missing or self.unexpected) or any(v.complaints for v in self.verdicts)",
            "not self.verdicts or any(v.complaints for v in self.verdicts)",
        ),
        ("elements outside are not looked at", "    if measured.outside:\n", "    if False:\n"),
        ("every error is rounding", "    like_on_cpu = (\n", "    like_on_cpu = True or (\n"),
    ),
    *_in(
        "comparator",
        "numerics/compare.py",
        f"test_numerics_compare.py {_WRONG_MODELS}",
        ("NaN on both sides agrees", "    if any(nan):  #", "    if nan[0] != nan[1]:  #"),
    ),
    *_in(
        "comparator",
        "numerics/positions.py",
        "test_numerics_positions.py",
        ("padding is compared, the text is not", "leaf = leaf[mask.bool()]", "leaf = leaf[~mask.bool()]"),
    ),
    *_in(
        "reference",
        "engine/runner.py",
        "test_runner.py test_runner_lending.py",
        (
            "the reference is loaded as what it judges",
            "return self._load(_on_cpu(cell, dtype), ReferenceSource(checkpoint))",
            "return self._load(_on_cpu(cell, dtype), checkpoint)",
        ),
        (
            "the reference is computed by the cell's device",
            "return self._load(_on_cpu(cell, dtype), ReferenceSource(checkpoint))",
            "return self._load(cell)",
        ),
        ("what is no outcome is taken for one", "if not isinstance(outcome, CheckOutcome):", "if False:"),
    ),
    *_in(
        "reference",
        "numerics/reference.py",
        f"test_numerics_reference.py {_WRONG_MODELS}",
        (
            "fp32 calls itself fp64",
            "loaded = self._small or self._load(self.dtype)",
            'loaded = self._small or self._load("fp32")',
        ),
        ("NaN in fp64 is kept", "    if not _has_nan(exact):\n", "    if True:\n"),
    ),
    *_in(
        "placement",
        "checks/loading.py",
        f"test_checks_loading.py {_WRONG_MODELS}",
        ("another precision passes", "if reported.effective_dtype != context.cell.dtype:", "if False:"),
        (
            "every device is the right one",
            "    name = reported.lower()\n",
            "    return True\n    name = reported.lower()\n",
        ),
        (
            "weights are not compared",
            "problems += context.source.weight_problems(context.loaded.pipeline_model())",
            "problems += []",
        ),
    ),
    *_in(
        "placement",
        "backends/torch/backend.py",
        "test_backends_torch.py",
        (
            "the device that was asked for is reported",
            "return Placement(cell.device.id, tuple(found),",
            "return Placement(cell.device.id, (cell.device.id,),",
        ),
        ("the precision that was asked for is reported", "cell.dtype, dtype or effective,", "cell.dtype, cell.dtype,"),
    ),
    *_in(
        "forward",
        "checks/outputs.py",
        _WRONG_MODELS,
        ("numbers that are not finite pass", "    if not problems:\n", "    if problems:\n"),
        ("another shape passes", "    if leaf.shape != reference.shape:\n", "    if False:\n"),
    ),
    *_in(
        "canary",
        "checks/canary.py",
        _WRONG_MODELS,
        ("the alarm is not listened to", "    if not alarm.is_refused:\n", "    if False:\n"),
        ("a weight that stays wrong passes", "    if restored.is_refused:\n", "    if False:\n"),
        (
            "a blind cell is not called so",
            "return twin if comparison.is_refused else {**twin, BLIND_TO: lower}",
            "return twin",
        ),
    ),
    *_in(
        "canary",
        "backends/torch/model.py",
        "test_backends_torch.py",
        ("no weight is made wrong", "weight[place] += change.delta", "weight[place] += 0.0 * change.delta"),
        ("no weight is restored", "            weight[place] = original\n", "            pass\n"),
    ),
    *_in(
        "sensitivity",
        "checks/dependence.py",
        _WRONG_MODELS,
        ("a dead model passes", "        if there[furthest] <= _UNMOVED:\n", "        if False:\n"),
        (
            "a blind device passes",
            "elif seen and not here.get(furthest, 0.0) >= _SHARE",
            "elif False and not here.get(furthest, 0.0) >= _SHARE",
        ),
    ),
    *_in(
        "memory",
        "checks/memory.py",
        "test_checks_memory.py",
        ("a constant count passes", "    if blindness:\n", "    if False:\n"),
        ("growth is never a leak", "    if hiding > _HIDING_ROUNDS:\n", "    if True:\n"),
        ("kept outputs pass", "    if alive > 1:  #", "    if False:  #"),
    ),
    *_in(
        "memory",
        "backends/memory.py",
        "test_backends_memory.py",
        ("KiB are taken for kB", "_UNITS_TO_BYTES = 1024", "_UNITS_TO_BYTES = 1000"),
        ("the count is a constant", '"current_bytes": info.rss,', '"current_bytes": 2**28,'),
    ),
    *_in(
        "determinism",
        "checks/outputs.py",
        _WRONG_MODELS,
        ("processors may be inexact", "    if exact and largest > 0.0:\n", "    if False:\n"),
    ),
    *_in(
        "generation",
        "checks/generation.py",
        "test_checks_generation.py",
        ("every divergence is rounding", "        if not gap <= allowed:\n", "        if False:\n"),
        ("tokens are not compared", "        if not len(steps):\n", "        if True:\n"),
    ),
    *_in(
        "weights",
        "checkpoints/described_model.py",
        _WRONG_MODELS,
        (
            "tensors are not compared with the files",
            "elif mine is None or not _is_same(mine, read(name)):",
            "elif mine is None:",
        ),
    ),
    *_in(
        "weights",
        "checks/loading.py",
        "test_checks_loading.py",
        ("missing tensors pass", "    if keys:\n", "    if False:\n"),
    ),
    *_in(
        "hashes",
        "core/files.py",
        "test_build_once.py test_damaged_cache.py::test_each_kind_of_damage_is_told_and_mended",
        ("a changed file is sound", 'if not is_trusted and hash_of(path) != written["sha256"]:', "if False:"),
    ),
    *_in(
        "hashes",
        "checkpoints/integrity.py",
        "test_integrity_of_downloads.py",
        (
            "a damaged download is intact",
            "        if not _is_named_by_content(content, stat.st_size):\n",
            "        if False:\n",
        ),
    ),
    *_in(
        "expectations",
        "engine/runner.py",
        "test_runner.py test_spec.py",
        (
            "a failure at another stage was expected",
            "elif outcome.stage == expectation.stage and (outcome",
            "elif (outcome",
        ),
        (
            "a pass against the expectation is told by nobody",
            "if outcome.status in (Status.PASSED, Status.XPASSED):",
            "if outcome.status == Status.XPASSED:",
        ),
    ),
    *_in(
        "expectations",
        "core/spec.py",
        "test_runner.py test_spec.py",
        (
            "an expected failure counts on every device",
            "            cell.device.matches(self.device)\n",
            "            True\n",
        ),
    ),
    *_in(
        "remote code",
        "core/spec.py",
        "test_remote_code.py test_spec.py",
        (
            "one consent is enough",
            "if REGISTERED in trusted and self.remote_code_registered:",
            "if REGISTERED in trusted:",
        ),
    ),
    *_in(
        "remote code",
        "checkpoints/pretrained/remote_code.py",
        "test_remote_code.py",
        ("nobody is asked", "if not spec.requires_remote_code or spec.may_run_its_code(trusted):", "if True:"),
    ),
    *_in(
        "collector",
        "core/results.py",
        "test_results.py test_reports_writer.py",
        (
            "the last check decides",
            "found = {check.status for check in self.checks}",
            "found = {check.status for check in self.checks[-1:]}",
        ),
    ),
    *_in(
        "collector",
        "reporting/reports.py",
        "test_reports_writer.py",
        ("a run with failures has passed", "        and not any(map(speaks_against, results))\n", ""),
    ),
    *_in(
        "journal",
        "reporting/journal.py",
        "test_reports_journal.py",
        (
            "a damaged line is read",
            'if crc32(line[: checksum.start()] + b"}") != int(checksum[1], 16):',
            "if False:",
        ),
    ),
    *_in(
        "resuming",
        "engine/outcome_key.py",
        "test_a_resumed_run_meets_something_else.py::test_another_model_of_the_same_name",
        ("another checkpoint is the same", '"checkpoint": checkpoint[:16],', '"checkpoint": "",'),
    ),
    *_in(
        "resuming",
        "engine/resume.py",
        "test_a_resumed_run_meets_something_else.py::test_another_model_of_the_same_name",
        (
            "what has changed does not matter",
            'return ", ".join(what_changed(cell.decided_by, decided_by))',
            'return ""',
        ),
    ),
    *_in(
        "scheduler",
        "plugin/processes/scheduling.py",
        "test_scheduling.py",
        ("what a dead worker had left is lost", "self._queue.extendleft(reversed(self._groups(left)))", "pass"),
        (
            "a model's tests are torn apart",
            "groups.setdefault(group_of(tests[index]), [])",
            "groups.setdefault(tests[index], [])",
        ),
    ),
    *_in(
        "redaction",
        "reporting/plain.py",
        "test_reports_redaction.py",
        ("tokens are written", 'text = _HUB_TOKEN.sub(rf"\\1{MASK}", text)', "pass"),
    ),
    *_in(
        "plan",
        "engine/plan.py",
        "test_spec.py",
        (
            "the precision that was asked for is not used",
            "for dtype in (dtypes or spec.dtypes)",
            "for dtype in spec.dtypes",
        ),
    ),
    *_in(
        "plan",
        "engine/model_selection.py",
        "test_default_model_that_is_not_registered.py::test_a_local_directory_is_what_is_tested",
        (
            "a default model that is not registered is another",
            "    if found or not name:\n        return found\n",
            "    return found\n",
        ),
    ),
    *_in(
        "registry",
        "registry/document.py",
        "test_registry_mistakes.py",
        ("a mistake is not told", "            document.add_problem(loc, _text(loc, detail))\n", "            pass\n"),
    ),
    *_in(
        "units",
        "predict/recommendation.py",
        "test_predict_recommendation.py",
        ("MiB are taken for bytes", "memory.value * MIB / have", "memory.value / have"),
    ),
    *_in(
        "units",
        "predict/layers/datasheet.py",
        "test_predict_platforms.py",
        ("what is written is free", "(one.read_bytes + one.written_bytes) / bandwidth", "one.read_bytes / bandwidth"),
    ),
    *_in(
        "exit codes",
        "plugin/reporting.py",
        "test_reports_cannot_be_written.py::test_a_disk_that_fills_up_during_the_run",
        (
            "reports that could not be written change no exit code",
            "        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR\n",
            "        pass\n",
        ),
    ),
)
