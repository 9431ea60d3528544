"""The reference: the same weights on the CPU, in fp64 where the model runs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING

from pytest_hfaccel.checks.continuing import Continuation, continued
from pytest_hfaccel.checks.leaf import LeafDifference, difference
from pytest_hfaccel.checks.memory_need import SMALL_BYTES, too_large_for
from pytest_hfaccel.checks.positions import real_positions
from pytest_hfaccel.core.errors import HfAccelError

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, ModelSource, WeightChange

    Load = Callable[[str], LoadedModel]
    Lend = Callable[[str], AbstractContextManager[LoadedModel]]


class Reference:
    """What a model must compute, asked for by every cell of the model and computed once.

    Made by `compute_reference`.

    Attributes:
        outputs: The tensors of `forward` by dotted leaf name; floating-point ones in fp64.
        real_outputs: The same without the positions of padding; see `real_positions`.
        dtype: `fp64`, or `fp32` where fp64 was not to be had.
        reason: Why it is not fp64; empty when it is.
        generation_reason: Why the tokens are those of fp32 where the outputs are not; empty when they are of one dtype.
    """

    def __init__(self, source: ModelSource, load: Load, lend: Lend, dtype: str, reason: str) -> None:
        self.dtype = dtype
        self.reason = reason
        self.generation_reason = ""
        self._source = source
        self._load = load
        self._lend = lend
        self._kept: LoadedModel | None = None
        self._continuations: dict[int, Continuation] = {}
        self._errors: dict[str, dict[str, LeafDifference]] = {}
        with self.model() as loaded:
            self.outputs: dict[str, torch.Tensor] = self._forward(loaded)
        self.real_outputs = self._real(self.outputs)

    @contextmanager
    def model(self) -> Iterator[LoadedModel]:
        """Give the loaded reference model; a small one stays loaded afterwards."""
        loaded = self._kept or self._load(self.dtype)
        self._kept = loaded if loaded.nbytes <= SMALL_BYTES else None
        try:
            yield loaded
        finally:
            if self._kept is None:
                loaded.close()

    def tokens(self, max_new_tokens: int) -> torch.Tensor:
        """The greedy continuation of the sample's `generate` inputs: int64, (batch, max_new_tokens)."""
        return self.continuation(max_new_tokens).tokens

    def step_logits(self, max_new_tokens: int) -> torch.Tensor:
        """The logits each of `tokens` was chosen by: fp64, (batch, max_new_tokens, vocabulary)."""
        return self.continuation(max_new_tokens).step_logits

    def continuation(self, max_new_tokens: int) -> Continuation:
        """The greedy continuation of the sample's `generate` inputs with all that is known of it."""
        if max_new_tokens not in self._continuations:
            self._continuations[max_new_tokens] = self._continue(max_new_tokens)
        return self._continuations[max_new_tokens]

    def error_of(self, dtype: str) -> dict[str, LeafDifference]:
        """How far the same model at `dtype` on torch's CPU is from this reference at real positions, by leaf.

        Empty where torch's CPU cannot run the model at that dtype, so that nobody is excused by it. In fp32 the model
        is loaded for this, as the reference was: the one a cell of the CPU has would excuse itself.
        """
        if dtype not in self._errors:
            self._errors[dtype] = self._measure_error(dtype)
        return self._errors[dtype]

    def outputs_with(self, change: WeightChange) -> dict[str, torch.Tensor]:
        """The outputs at real positions with one weight made wrong."""
        with self.model() as loaded, loaded.perturbed(change) as wrong:
            return self._real(self._forward(wrong))

    def close(self) -> None:
        """Free the model, if it is still loaded. It is loaded again when needed."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _forward(self, loaded: LoadedModel) -> dict[str, torch.Tensor]:
        outputs = loaded.forward(self._source.sample().forward)
        return {name: leaf.double() if leaf.is_floating_point() else leaf for name, leaf in outputs.items()}

    def _real(self, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return real_positions(outputs, self._source.sample().forward)

    def _measure_error(self, dtype: str) -> dict[str, LeafDifference]:
        try:
            with closing(self._load(dtype)) if dtype == "fp32" else self._lend(dtype) as loaded:
                outputs = self._real(loaded.forward(self._source.sample().forward))
        except (HfAccelError, RuntimeError, NotImplementedError):
            return {}
        both = (name for name in self.real_outputs if name in outputs)
        return {name: difference(name, outputs[name], self.real_outputs[name]) for name in both}

    def _continue(self, max_new_tokens: int) -> Continuation:
        inputs = self._source.sample().generate
        if inputs is None:
            raise HfAccelError(f"{self._source.spec.name} has no inputs for generate", stage="run")
        try:
            with self.model() as loaded:
                return continued(loaded, inputs, max_new_tokens)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if self.dtype == "fp32":
                raise
            # A forward pass in fp64 that works says nothing of the code for one more token (XLNet).
            self.generation_reason = _not_in_fp64(error)
        with self._lend("fp32") as loaded:
            return continued(loaded, inputs, max_new_tokens)


def compute_reference(source: ModelSource, load: Load, lend: Lend) -> Reference:
    """Run the model on the CPU in fp64, or in fp32 where fp64 does not fit or does not run.

    Args:
        source: The checkpoint.
        load: Loads it with torch on the CPU at a dtype, for the reference to keep.
        lend: The same for a moment; it may give a model that others use, too.

    Raises:
        HfAccelError: The model cannot be loaded at all.
        RuntimeError: It runs in neither dtype; torch's message says why.
    """
    reason = too_large_for(source, "fp64")
    if reason:
        return Reference(source, load, lend, "fp32", reason)
    try:
        exact = Reference(source, load, lend, "fp64", "")
    except (HfAccelError, RuntimeError, NotImplementedError, TypeError) as error:
        return Reference(source, load, lend, "fp32", _not_in_fp64(error))
    if not _has_nan(exact):
        return exact
    # A mask that is the lowest number of fp32 and is added to that of fp64, say: the exact answer is not to be had so.
    plain = Reference(source, load, lend, "fp32", "fp64 gives NaN where fp32 gives numbers")
    return exact if _has_nan(plain) else plain


def _not_in_fp64(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"fp64 does not run: {type(error).__name__}: {text}"


def _has_nan(reference: Reference) -> bool:
    return any(bool(leaf.isnan().any()) for leaf in reference.outputs.values() if leaf.is_floating_point())
