"""Looks up and computes, for one model, what is known of it on every kind of device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.advisor.candidate import Candidate
from pytest_hfaccel.advisor.compatibility import CompatibilityMatrix
from pytest_hfaccel.advisor.cost import ArchitectureCost
from pytest_hfaccel.advisor.costs import DEFAULT_LENGTH, cost_of
from pytest_hfaccel.advisor.machine import Machine
from pytest_hfaccel.advisor.model_source import KnownModel
from pytest_hfaccel.advisor.requirements import MB, USABLE_SHARE, Requirements, requirements_on
from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.errors import HfAccelError

_DTYPES = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16"), "rocm": ("fp32", "bf16"), "xpu": ("fp32", "bf16")}
_DTYPES |= {"mps": ("fp32", "fp16")}
"""The dtypes tried on a kind of device until one fits; fp32 alone elsewhere, where a smaller one is not kept small."""


class Candidates:
    """Makes the candidates of a model.

    Args:
        machine: The machine the advice is for.
        matrix: What is known of support.
        cache_dir: Where computed costs are remembered.
        length: Tokens per sample of texts.
    """

    def __init__(
        self, machine: Machine, matrix: CompatibilityMatrix, cache_dir: Path, length: int = DEFAULT_LENGTH
    ) -> None:
        self._machine, self._matrix = machine, matrix
        self._cache_dir, self._length = cache_dir, length

    def of(
        self,
        known: KnownModel | str,
        name: str,
        model_class: str | None,
        family: str,
        override: Mapping[str, Mapping[str, Any]],
    ) -> list[Candidate]:
        """Return the model on each kind of device, preferred kinds first.

        Args:
            known: Its class and dimensions, or why they are not known.
            name: The name it was asked for by.
            model_class: The class it was asked for with.
            family: Its family.
            override: What the caller says of kinds of device; believed over everything else.
        """
        cost = self._cost(known) if isinstance(known, KnownModel) else None
        names = (known.spec.name, known.spec.architecture) if isinstance(known, KnownModel) else (name, model_class)
        origin = known.origin if isinstance(known, KnownModel) else ""
        return [
            self._candidate(kind, *names, family, cost, origin, override.get(kind)) for kind in self._machine.preference
        ]

    def _cost(self, known: KnownModel) -> ArchitectureCost | None:
        try:
            return cost_of(known.spec.architecture, known.spec.dims, length=self._length, cache_dir=self._cache_dir)
        except HfAccelError:
            if known.spec.requires_remote_code or known.is_assumed:
                return None  # its class is not transformers' own, or nothing but a guess
            raise

    def _candidate(
        self,
        kind: str,
        name: str,
        architecture: str | None,
        family: str,
        cost: ArchitectureCost | None,
        origin: str,
        override: Mapping[str, Any] | None,
    ) -> Candidate:
        facts = self._machine.facts(kind)
        needs = self._needs(kind, cost, origin) if cost else None
        support = self._matrix.entry(name, architecture, family, kind)
        if override is not None and "compatible" in override:
            support = Support("real" if override["compatible"] else "unavailable", "override", "given by the caller")
        fits = needs.fits if needs else None
        given = ((override or {}).get("memory_usage") or {}).get("peak")
        if given is not None and facts.memory_bytes is not None:
            fits = given * MB <= USABLE_SHARE * facts.memory_bytes
        return Candidate(
            kind=kind,
            is_present=facts.is_present,
            presence=facts.reason,
            support=support,
            needs=needs,
            peak_mb=int(given) if given is not None else (needs.min_memory_mb if needs else None),
            fits=fits,
            latency_ms=self._matrix.latency_ms(name, kind, needs.dtype if needs else "fp32"),
        )

    def _needs(self, kind: str, cost: ArchitectureCost, origin: str) -> Requirements:
        """Return the requirements at the first dtype that fits, else at the last one."""
        memory = self._machine.facts(kind).memory_bytes
        tried = [
            requirements_on(kind, cost, dtype=dtype, memory_bytes=memory, cores=self._machine.cores, origin=origin)
            for dtype in _DTYPES.get(kind, ("fp32",))
        ]
        if memory is None:
            return tried[0]
        return next((needs for needs in tried if needs.fits), tried[-1])
