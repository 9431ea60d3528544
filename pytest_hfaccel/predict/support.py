"""Whether a model runs on a kind of device: declared by family, overridden by the results of earlier runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from pytest_hfaccel.core.devices import BUILT_IN, HARDWARE_KINDS, TORCH_KINDS
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.core.results import nodes_of
from pytest_hfaccel.predict.measured_cells import RUNNING, MeasuredCell, Support
from pytest_hfaccel.tracing.trace import ModelTrace

KINDS = (
    *HARDWARE_KINDS,
    *(kind.name for kind in BUILT_IN.values() if kind.is_searched and kind.name not in HARDWARE_KINDS),
)
"""The kinds of device the matrix has, in the order in which they are preferred where no speed is known."""

_TESTED_KINDS = ("cpu",)
"""The kinds of torch's devices on which this package's own runs have been made (README, "What has run where")."""

FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal", "video")

_ON_OPENVINO = ("embedding", "text_generation", "vision", "audio", "video")
"""The families that the old guide declares for OpenVINO; it calls multimodal models a simulation there."""

_ON_ONNX = ("embedding", "text_generation", "vision", "audio", "multimodal")
"""The families of which this package's own runs have tested a model on `onnxruntime:CPU`, wasm and webnn."""

_ONNX_KINDS = ("onnxruntime", "wasm", "webnn")


def declared_support(family: str, kind: str) -> Support:
    """Return what is declared of a family on a kind of device."""
    if "+" in kind:
        return Support(
            "untested", "declared", f"nothing is declared of compiled or split models; no run on {kind} is known"
        )
    if kind in TORCH_KINDS:
        same = "transformers runs the same torch code on every torch device"
        if kind in _TESTED_KINDS:
            return Support("real", "declared", same)
        return Support("untested", "declared", f"{same}, but no run on {kind} is known")
    of_family = f"{family} models" if family else "models of an unknown family"
    if (
        (kind == "openvino" and family in _ON_OPENVINO)
        or (kind in _ONNX_KINDS and family in _ON_ONNX)
        or (kind == "executorch" and family in FAMILIES)
    ):
        return Support("real", "declared", f"declared for the {family} family")
    if kind == "webgpu" and family in _ON_ONNX:
        only = "on a software adapter, which is emulation; none on a GPU"
        return Support("untested", "declared", f"runs of {of_family} are known {only}")
    if kind in BUILT_IN and kind != "openvino":
        return Support("untested", "declared", f"no run of {of_family} on {kind} is known")
    return Support("unavailable", "declared", f"nothing is declared for {of_family} on {kind}")


def family_of_class(architecture: str) -> str:
    """Return the family of an architecture class."""
    from pytest_hfaccel.classify import ModelFamilyClassifier

    return str(ModelFamilyClassifier().analyze_model_class(architecture)["family"])


_BEST_FIRST = (*RUNNING, "failing", "unavailable")


class CompatibilityMatrix:
    """Which model runs on which kind of device, and how that is known; the last layer of a prediction.

    Args:
        cells: Measured cells, oldest first; of several of the same kind the last one stands.
    """

    name = Source.DECLARED

    def __init__(self, cells: Iterable[MeasuredCell] = ()) -> None:
        self._cells = list(cells)

    def entry(self, model: str, architecture: str | None, family: str, kind: str) -> Support:
        """Return what is known of a model on a kind of device.

        A cell of the model itself counts first, then one of its architecture class, then what is declared of its
        family. That a device was not there when it was tried says nothing about the model, so then the declaration
        stands, and the reason says so.
        """
        measured = self._last(kind, "model", model) or self._last(kind, "architecture", architecture)
        declared = declared_support(family, kind)
        return declared if measured is None else _unless_absent(measured, declared)

    def by_family(self, family_of: Callable[[str], str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        """Return family -> kind of device -> entry, as plain JSON.

        Measured entries count the newest cells of each model, device and dtype, and their checks: `cells_that_ran` of
        `cells_measured`, `checks_passed` of `checks_run`. Families beyond the guide's six, and kinds of device that a
        third party serves, are there if measured.

        Args:
            family_of: Returns the family of an architecture class (default: as it is classified).
        """
        family_of = cache(family_of or family_of_class)
        found: dict[tuple[str, str], list[tuple[MeasuredCell, Support]]] = defaultdict(list)
        for cell, support in self._newest():
            found[family_of(cell.result.architecture), cell.kind].append((cell, support))
        families = dict.fromkeys([*FAMILIES, *sorted(family for family, _ in found)])
        kinds = dict.fromkeys([*KINDS, *sorted(kind for _, kind in found)])
        return {
            family: {kind: _summary(found.get((family, kind), []), family, kind) for kind in kinds}
            for family in families
        }

    def by_device(self) -> dict[str, dict[str, Any]]:
        """Return what was measured on each device, by its id, as plain JSON.

        Returns:
            `implementation` (`real`, `emulated`; `unavailable` where nothing ran), `cells_that_ran`, `cells_measured`,
            `checks_passed`, `checks_run`; `run`, `when` and `where` of the newest run; and of converted graphs `nodes`
            (by execution provider) and `not_taken` (operators that the device left to the CPU, with their numbers).
        """
        found: dict[str, list[tuple[MeasuredCell, Support]]] = defaultdict(list)
        for cell, support in self._newest():
            found[cell.result.device].append((cell, support))
        return {device: _evidence(entries) for device, entries in sorted(found.items())}

    def _newest(self) -> list[tuple[MeasuredCell, Support]]:
        """Return the newest cell of each model, device and dtype that says something, with what it says."""
        newest: dict[tuple[str, str, str], tuple[MeasuredCell, Support]] = {}
        for cell in self._cells:
            support = cell.support()
            if support is not None:
                newest[cell.key] = (cell, support)
        return list(newest.values())

    def _last(self, kind: str, field: str, value: str | None) -> Support | None:
        """The best entry of the last run that tried it: a dtype that fails does not speak for the others."""
        known = [
            support
            for cell in self._cells
            if value and cell.kind == kind and getattr(cell.result, field) == value and (support := cell.support())
        ]
        return _best([support for support in known if support.when == known[-1].when]) if known else None

    def support(self, question: Question) -> Support:
        """Return what is known of the model on this kind of device."""
        return self.entry(question.model, question.architecture or None, question.family, question.device_kind)

    def predict(self, question: Question, trace: ModelTrace | None = None) -> Prediction:  # noqa: ARG002
        """Return what is known of support as a prediction without a number."""
        support = self.support(question)
        return Prediction(question, self.name, f"{support.basis} {support.support}: {support.reason}", None, None)

    def why_not(self, question: Question) -> str:  # noqa: ARG002
        """Say why there is no latency."""
        return "a declaration has no number"


def _best(entries: list[Support]) -> Support:
    return min(entries, key=lambda entry: _BEST_FIRST.index(entry.support))


def _unless_absent(measured: Support, declared: Support) -> Support:
    """Return what was measured; the declaration where the device was absent, which says nothing about a model."""
    if measured.support == "unavailable" and declared.runs:
        return Support(declared.support, "declared", f"{declared.reason}; not measured: {measured.reason}")
    return measured


def _summary(entries: list[tuple[MeasuredCell, Support]], family: str, kind: str) -> dict[str, Any]:
    declared = declared_support(family, kind)
    if not entries:
        return declared.to_json()
    found = _unless_absent(_best([support for _, support in entries]), declared)
    return found.to_json() if found.basis == "declared" else {**found.to_json(), **_counts(entries)}


def _counts(entries: list[tuple[MeasuredCell, Support]]) -> dict[str, int]:
    checks = [cell.checks for cell, _ in entries]
    return {
        "cells_that_ran": sum(support.runs for _, support in entries),
        "cells_measured": len(entries),
        "checks_passed": sum(passed for passed, _ in checks),
        "checks_run": sum(ran for _, ran in checks),
    }


def _evidence(entries: list[tuple[MeasuredCell, Support]]) -> dict[str, Any]:
    loaded = {cell.result.implementation for cell, support in entries if support.support != "unavailable"}
    implementation = next((word for word in ("real", "emulated") if word in loaded), "unavailable")
    last = max((support for _, support in entries), key=lambda support: support.when)
    by_provider: Counter[str] = Counter()
    not_taken: Counter[str] = Counter()
    for cell, _ in entries:
        nodes = nodes_of(cell.result.placement)
        by_provider.update(nodes.by_provider)
        not_taken.update(nodes.not_taken)
    facts = {"run": last.run, "when": last.when, "where": last.where}
    graphs = {"nodes": dict(by_provider.most_common()), "not_taken": dict(not_taken.most_common())}
    return {
        "implementation": implementation,
        **_counts(entries),
        **{name: value for name, value in {**facts, **graphs}.items() if value},
    }
