"""Known defects to plant in a working model, for tests that a check catches them.

Each function takes a `LoadedModel` and gives one that behaves like it but for the defect. None of them looks into the
model, so that they serve every backend. A check is run on the result with `around`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, WeightChange
    from pytest_hfaccel.checks.base import CheckContext

    Tensors = Mapping[str, torch.Tensor]
    Forward = Callable[[Tensors], dict[str, torch.Tensor]]

LEAKED_BYTES = 2**20
"""What a leaking model loses with every run; the check `memory` must notice this much on every backend."""

SIGNIFICANT_BITS = {"fp16": 11, "bf16": 8, "fp8": 4}
"""Binary digits of a number, the leading one included; fp8 is e4m3. Its range is left out of account."""


class Planted:
    """A loaded model, or a context, that behaves like `original`, but for the attributes and methods in `overrides`."""

    def __init__(self, original: Any, **overrides: Any) -> None:
        self._original = original
        self._overrides = overrides

    def __getattr__(self, name: str) -> Any:
        return self._overrides[name] if name in self._overrides else getattr(self._original, name)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[Planted]:
        """Make the weight wrong, too, unless that is overridden; the defect stays."""
        with self._overrides.get("perturbed", self._original.perturbed)(change):
            yield self


def around(context: CheckContext, loaded: LoadedModel) -> CheckContext:
    """Return the context of a check with another model in it, and with that model's outputs."""

    class Around(Planted):
        @property
        def outputs(self) -> Tensors:
            return loaded.forward(context.sample.forward)

    return cast("CheckContext", Around(context, loaded=loaded))


def with_forward(loaded: LoadedModel, change: Callable[[Forward, Tensors], dict[str, torch.Tensor]]) -> LoadedModel:
    """Replace `forward` by `change(right forward, inputs)`."""
    return cast("LoadedModel", Planted(loaded, forward=lambda inputs: change(loaded.forward, inputs)))


def rounding(loaded: LoadedModel, dtype: str) -> LoadedModel:
    """Round the outputs to another precision (a key of `SIGNIFICANT_BITS`): less than computing in it would lose."""
    return with_forward(loaded, lambda right, inputs: rounded(right(inputs), dtype))


def rounded(outputs: Tensors, dtype: str) -> dict[str, torch.Tensor]:
    """Return outputs, the floating-point ones rounded to the nearest numbers of a precision."""
    import torch

    bits = SIGNIFICANT_BITS[dtype]

    def nearest(leaf: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(leaf.double())
        return torch.ldexp((mantissa * 2**bits).round(), exponent - bits).to(leaf.dtype)

    return {name: nearest(leaf) if leaf.is_floating_point() else leaf for name, leaf in outputs.items()}


def leaking(loaded: LoadedModel, nbytes: int = LEAKED_BYTES) -> LoadedModel:
    """Lose memory with every run, where the model's own `memory` counts it; `close` gives it back."""
    lost = ExitStack()

    def forward(inputs: Tensors) -> dict[str, torch.Tensor]:
        lost.enter_context(loaded.occupied(nbytes))
        return loaded.forward(inputs)

    def close() -> None:
        lost.close()
        loaded.close()

    return cast("LoadedModel", Planted(loaded, forward=forward, close=close))


def with_constant_memory(loaded: LoadedModel) -> LoadedModel:
    """Give a count of memory that never changes."""
    count = loaded.memory()
    return cast("LoadedModel", Planted(loaded, memory=lambda: count))


def ignoring(loaded: LoadedModel, name: str, value: torch.Tensor) -> LoadedModel:
    """Always see the same value of one input, whatever the caller passes."""
    return with_forward(loaded, lambda right, inputs: right({**inputs, name: value}))
