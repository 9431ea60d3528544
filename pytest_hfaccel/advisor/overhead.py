"""What a runtime needs besides weights and activations: constants measured by `benchmarks/requirements_accuracy.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.advisor.cost import ArchitectureCost


@dataclass(frozen=True)
class Overhead:
    """How weights and activations become the memory of a process, on one kind of device.

    `peak = weights + base + per_multiplied_byte * multiplied + per_activation_byte * activations
    + per_output_byte * outputs`

    Attributes:
        import_bytes: Memory of a process that has imported the runtime and done nothing; 0 for memory of a device.
        base_bytes: What the runtime takes for itself on the first run.
        per_multiplied_byte: Bytes per byte of the weights that go into matrix products, besides those above: OpenVINO
            keeps them a second time, in its own layout.
        per_activation_byte: Bytes per byte of activations: what the allocator cannot use again at once.
        per_output_byte: Bytes per byte of the outputs, besides those above: OpenVINO holds and returns copies of them.
        flops_per_second_and_core: Speed of one core on whole models; 0 where it was not measured.
        source: Where the numbers come from, for people.
    """

    import_bytes: int
    base_bytes: int
    per_multiplied_byte: float
    per_activation_byte: float
    per_output_byte: float
    flops_per_second_and_core: int
    source: str

    @property
    def is_measured(self) -> bool:
        """Whether these numbers were measured on a device of this kind."""
        return self.import_bytes > 0

    def peak_bytes(self, cost: ArchitectureCost, dtype: str, batch: int) -> int:
        """Bytes a process (or an accelerator's memory) holds at the peak, imports included."""
        runtime = self.import_bytes + self.base_bytes
        again = self.per_multiplied_byte * cost.multiplied_bytes(dtype)
        running = self.per_activation_byte * cost.activation_bytes(dtype, batch)
        outputs = self.per_output_byte * cost.output_bytes(dtype, batch)
        return int(runtime + cost.weight_bytes(dtype) + again + running + outputs)


def overhead_of(kind: str) -> Overhead:
    """Return the overhead of a kind of device.

    Where none was measured it is weights and activations as computed: a lower bound, and `source` says so.
    """
    row = _measured().get(kind)
    if row is None:
        source = f"no overhead was measured on {kind}: weights and activations only, without the runtime's own memory"
        return Overhead(0, 0, 0.0, 1.0, 0.0, 0, source)
    how = row.pop("measured")
    versions = ", ".join(f"{name} {number}" for name, number in how["versions"].items())
    source = f"measured at fp32 on {how['when']} with {how['models']} models on {how['machine']} ({versions})"
    return Overhead(**row, source=source)


def _measured() -> dict[str, Any]:
    return dict(json.loads(_text()))


@cache
def _text() -> str:
    return files("pytest_hfaccel.advisor").joinpath("overhead.json").read_text(encoding="utf-8")
