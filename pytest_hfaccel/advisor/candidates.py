"""What is known of one model on every kind of device, and which of them to recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.advisor.candidate import Candidate
from pytest_hfaccel.advisor.cost import ArchitectureCost
from pytest_hfaccel.advisor.costs import DEFAULT_LENGTH, cost_of
from pytest_hfaccel.advisor.declared import KINDS
from pytest_hfaccel.advisor.machine import Machine
from pytest_hfaccel.advisor.naming import NamedModel
from pytest_hfaccel.advisor.requirements import MB, USABLE_SHARE, Requirements, requirements_on
from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.core.errors import HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.predict.candidate import Candidate as PredictedCandidate
    from pytest_hfaccel.predict.engine import Engine
    from pytest_hfaccel.predict.platforms import Platform
    from pytest_hfaccel.predict.prediction import Prediction

_DTYPES = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16"), "rocm": ("fp32", "bf16"), "xpu": ("fp32", "bf16")}
_DTYPES |= {"mps": ("fp32", "fp16")}
"""The dtypes tried on a kind of device until one fits; fp32 alone elsewhere, where a smaller one is not kept small."""

Override = Mapping[str, Mapping[str, Any]]
"""Kind of device -> what the caller says of it; believed over everything else."""


class Candidates:
    """Makes the candidates of a model, and has the predictor choose among them: there is one answer to "where?".

    Args:
        machine: The machine the advice is for.
        engine: Predicts, and knows what is declared or was measured.
    """

    def __init__(self, machine: Machine, engine: Engine) -> None:
        self._machine, self._engine = machine, engine

    def of(self, model: NamedModel, override: Override) -> list[Candidate]:
        """Return the model on each kind of device, preferred kinds first."""
        cost = self._cost(model)
        return [self._candidate(kind, model, cost, override.get(kind, {})) for kind in KINDS]

    def recommend(
        self, model: NamedModel, candidates: Sequence[Candidate], asked: Sequence[str], override: Override
    ) -> dict[str, Any]:
        """Return what `predictor.recommendation.recommend` says of one sample on the devices considered.

        Args:
            model: The model.
            candidates: It on each kind of device.
            asked: The kinds to choose among, present or not; when empty, the devices that are present.
            override: What the caller says of kinds of device.
        """
        from pytest_hfaccel.predict.configuration import WEIGHTS
        from pytest_hfaccel.predict.recommendation import recommend

        platforms = self._engine.platforms
        names = list(asked) or [name for name in platforms.present() if name.partition(":")[0] in KINDS]
        if asked:
            considered = "Considered: the hardware named."
        else:
            considered = f"Considered: the devices of this machine ({', '.join(names)})."
        by_kind = {each.kind: each for each in candidates}
        found = [self._predicted(model, platforms.of(name), by_kind, override) for name in names]
        return recommend(found, WEIGHTS["inference"], considered)

    def _predicted(
        self, model: NamedModel, platform: Platform, by_kind: Mapping[str, Candidate], override: Override
    ) -> PredictedCandidate:
        """Return the predictor's candidate, in which the caller's word counts as it does in ours."""
        from pytest_hfaccel.predict.candidate import Candidate as PredictedCandidate

        candidate = by_kind[platform.kind]
        found = self._predict(model, platform, candidate.needs.dtype if candidate.needs else "fp32")
        if platform.kind in override:
            advice = found.advice or f"Needs {candidate.peak_mb} MB by the caller's word, which does not fit."
            details = {**found.details, "support": candidate.support.to_json()}
            found = replace(found, fits=candidate.fits, advice=advice, details=details)
        return PredictedCandidate(platform, found)

    def _predict(self, model: NamedModel, platform: Platform, dtype: str) -> Prediction:
        return self._engine.predict(model, platform, batch=1, length=DEFAULT_LENGTH, dtype=dtype, training=False)

    def _cost(self, model: NamedModel) -> ArchitectureCost | None:
        if not model.architecture:
            return None
        try:
            return cost_of(model.architecture, model.dims, length=DEFAULT_LENGTH, cache_dir=self._engine.cache_dir)
        except HfAccelError:
            if model.requires_remote_code or model.is_assumed:
                return None  # its class is not transformers' own, or nothing but a guess
            raise

    def _candidate(
        self, kind: str, model: NamedModel, cost: ArchitectureCost | None, said: Mapping[str, Any]
    ) -> Candidate:
        facts = self._machine.facts(kind)
        needs, found = self._needs(kind, model, cost)
        support = Support(**found.details["support"])
        if "compatible" in said:
            support = Support("real" if said["compatible"] else "unavailable", "override", "given by the caller")
        fits = needs.fits if needs else None
        given = (said.get("memory_usage") or {}).get("peak")
        if given is not None:
            fits = given * MB <= USABLE_SHARE * facts.memory_bytes if facts.memory_bytes is not None else None
        return Candidate(
            kind=kind,
            is_present=facts.is_present,
            presence=facts.reason,
            support=support,
            needs=needs,
            peak_mb=int(given) if given is not None else (needs.min_memory_mb if needs else None),
            fits=fits,
        )

    def _needs(
        self, kind: str, model: NamedModel, cost: ArchitectureCost | None
    ) -> tuple[Requirements | None, Prediction]:
        """Return requirements and prediction at the first dtype that fits, else at the last one that runs there."""
        platform = self._engine.platforms.of(kind)
        is_present = self._machine.facts(kind).is_present
        dtypes = [dtype for dtype in _DTYPES.get(kind, ("fp32",)) if platform.precision(dtype).runs]
        for dtype in dtypes:
            found = self._predict(model, platform, dtype)
            if not is_present or found.fits is not False:
                break
        if cost is None:
            return None, found
        memory = self._machine.facts(kind).memory_bytes
        needs = requirements_on(
            kind, cost, dtype=dtype, memory_bytes=memory, cores=self._machine.cores, origin=model.origin
        )
        return (replace(needs, fits=found.fits) if is_present and found.fits is not None else needs), found
