"""What a measuring process is asked to do, as JSON: it also takes models that no registry knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.points import Point
from pytest_hfaccel.benchmark.timing import Effort
from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import (
    Cell,
    Device,
    Expectation,
    ModelSpec,
    PackageSource,
    VersionBound,
    Weights,
    WeightsChoice,
)

_OF_SPEC = (
    "name",
    "architecture",
    "task",
    "hub_id",
    "path",
    "trained",
    "dims",
    "requires_remote_code",
    "remote_code_registered",
    "revision",
    "source",
)
"""The plain fields of a `ModelSpec` that decide which checkpoint it has; the others are about tests."""


_BOUNDS = ("min_transformers", "max_transformers")


def _bounds(spec: ModelSpec) -> dict[str, VersionBound | None]:
    return {name: getattr(spec, name) for name in _BOUNDS}


@dataclass(frozen=True)
class Request:
    """A model on a device at several points.

    Attributes:
        cell: Model, device, dtype and weights.
        points: Where to measure.
        threads: CPU threads of the runtime.
        cache_dir: Where checkpoints and converted models are kept.
        timeout: Seconds for preparing the model, and for each point.
        effort: How much work the timing of a point may be.
        generation: Whether the tokens of generating models are timed.
        trust_remote_code: Models whose repository's code may run; see `ModelSpec.may_run_its_code`.
        allow_pickle: Whether weights that are not safetensors may be loaded.
        checks: Checks the cell must pass before anything is measured; none: nothing is checked.
    """

    cell: Cell
    points: tuple[Point, ...]
    threads: int
    cache_dir: Path
    timeout: float
    effort: Effort = field(default_factory=Effort)
    generation: bool = True
    trust_remote_code: tuple[str, ...] = ()
    allow_pickle: bool = False
    checks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        spec = {name: getattr(self.cell.model, name) for name in _OF_SPEC}
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            **plain,
            "spec": {
                **spec,
                "dims": dict(spec["dims"]),
                "package": asdict(package) if (package := self.cell.model.package) else None,
                "dependencies": list(self.cell.model.dependencies),
                "expect": [asdict(one) for one in self.cell.model.expect],
                **{name: bound and asdict(bound) for name, bound in _bounds(self.cell.model).items()},
            },
            "checks": list(self.checks),
            "trust_remote_code": list(self.trust_remote_code),
            "device": [self.cell.device.kind, self.cell.device.target],
            "dtype": self.cell.dtype,
            "weights": asdict(self.cell.weights),
            "points": [asdict(point) for point in self.points],
            "cache_dir": str(self.cache_dir),
            "effort": asdict(self.effort),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Request:
        """Rebuild a request from what `to_json` returned."""
        choice = WeightsChoice(**{**data["weights"], "kind": Weights(data["weights"]["kind"])})
        expect = tuple(Expectation(**{**one, "stage": Stage(one["stage"])}) for one in data["spec"]["expect"])
        plain = data["spec"]
        bounds = {name: VersionBound(**plain[name]) for name in _BOUNDS if plain[name]}
        needs = {"dependencies": tuple(plain["dependencies"]), **dict.fromkeys(_BOUNDS), **bounds}
        package = plain["package"] and PackageSource(
            **{**plain["package"], "install": tuple(plain["package"]["install"])}
        )
        spec = ModelSpec(**{**plain, "package": package, "expect": expect, **needs})
        cell = Cell(spec, Device(*data["device"]), data["dtype"], choice)
        return cls(
            cell=cell,
            points=tuple(Point(**point) for point in data["points"]),
            cache_dir=Path(data["cache_dir"]),
            effort=Effort(**data["effort"]),
            checks=tuple(data["checks"]),
            trust_remote_code=tuple(data["trust_remote_code"]),
            **{name: data[name] for name in _PLAIN},
        )


_PLAIN = ("threads", "timeout", "generation", "allow_pickle")
