"""The reference: the same weights on the CPU, in fp64 where that fits into memory and the model runs in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import is_padded
from pytest_hfaccel.core.errors import HfAccelError, error_line, format_bytes
from pytest_hfaccel.numerics.budgets import FEW_RUNS, MANY_RUNS, RUNS, Budget, emulate, round_to
from pytest_hfaccel.numerics.compare import LeafDifference, difference
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.sampling import reserved_tokens, vary_inputs

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, ModelSource, WeightChange

    Tensors = dict[str, torch.Tensor]
    Load = Callable[[str], LoadedModel]
    Borrow = Callable[[str], AbstractContextManager[LoadedModel]]


_BYTES_OF_FP64 = 8
_HEADROOM = 1.5
"""Loading holds the checkpoint's own tensors beside the converted ones for a while, and a forward pass needs room."""

SMALL_BYTES = 256 * 2**20
"""A model up to this size stays in memory for later use."""

_FEW_RUNS_BEYOND = 16 * 2**20
"""Tiny models are all below 16 MiB in fp64."""


@dataclass(frozen=True)
class Continuation:
    """The greedy continuation of prompts.

    Attributes:
        tokens: int64, (batch, new tokens).
        step_logits: The logits each of them was chosen by: fp64, (batch, new tokens, vocabulary).
        prompt_logits: What `forward` predicts after the prompts, which the first of `step_logits` should equal: fp64,
            (batch, vocabulary). `None` where the two cannot be compared.
        prompt_reason: Why not; empty where `prompt_logits` are there.
    """

    tokens: torch.Tensor
    step_logits: torch.Tensor
    prompt_logits: torch.Tensor | None
    prompt_reason: str


class Reference:
    """What a model must compute: used by every cell of the model, computed once.

    Made by `compute_reference`.

    Attributes:
        inputs: What `forward` was called with: the sample's.
        outputs: The tensors of `forward` by dotted leaf name; floating-point ones in fp64.
        real_outputs: The same without the positions of padding; see `real_positions`.
        dtype: `fp64`, or `fp32` where fp64 is not available.
        reason: Why it is not fp64; empty when it is.
        generation_reason: Why the tokens are those of fp32 where the outputs are not; empty when they are of one dtype.
    """

    def __init__(self, source: ModelSource, load: Load, borrow: Borrow, dtype: str, reason: str) -> None:
        self.dtype = dtype
        self.reason = reason
        self.generation_reason = ""
        self._source = source
        self._load = load
        self._borrow = borrow
        self._small: LoadedModel | None = None
        self._continuations: dict[int, Continuation] = {}
        self._errors: dict[str, dict[str, LeafDifference]] = {}
        self._budgets: dict[tuple[str, bool], Budget] = {}
        self._whole: Reference | None = None
        self._nbytes = 0
        self._varied: dict[int, Reference] = {}
        self.inputs = source.sample().forward
        with self.model() as loaded:
            self.outputs: Tensors = self._forward(loaded)
        self.real_outputs = self._real(self.outputs)

    @contextmanager
    def model(self) -> Iterator[LoadedModel]:
        """Give the loaded reference model; a small one stays loaded afterwards."""
        if self._whole is not None:
            with self._whole.model() as loaded:
                yield loaded
            return
        loaded = self._small or self._load(self.dtype)
        self._nbytes = loaded.nbytes
        self._small = loaded if loaded.nbytes <= SMALL_BYTES else None
        try:
            yield loaded
        finally:
            if self._small is None:
                loaded.close()

    def continuation(self, max_new_tokens: int) -> Continuation:
        """The greedy continuation of the sample's `generate` inputs, with a cache."""
        if max_new_tokens not in self._continuations:
            self._continuations[max_new_tokens] = self._generate(max_new_tokens)
        return self._continuations[max_new_tokens]

    def error_of(self, dtype: str) -> dict[str, LeafDifference]:
        """How far the same model at `dtype` on torch's CPU is from this reference at real positions, by leaf.

        Empty where torch's CPU cannot run the model at that dtype, so that it excuses nobody. In fp32 the model is
        loaded for this, as the reference was: the one a cell of the CPU has would excuse itself.
        """
        if dtype not in self._errors:
            self._errors[dtype] = self._measure_error(dtype)
        return self._errors[dtype]

    def budget_of(self, dtype: str, *, is_rough: bool = False, is_thorough: bool = False) -> Budget:
        """What rounding to `dtype` must cost this model on the sample, emulated on this reference; see `budgets`.

        Args:
            dtype: The dtype.
            is_rough: Whether few passes will do for a model that is not small.
            is_thorough: Whether to make many passes, among which rarer errors are found.
        """
        runs = MANY_RUNS if is_thorough else FEW_RUNS if is_rough and self._nbytes > _FEW_RUNS_BEYOND else RUNS
        known = self._budgets.get((dtype, is_thorough))
        if known is None or (known.costs and known.runs < runs):
            self._budgets[dtype, is_thorough] = self._emulate(dtype, runs)
        return self._budgets[dtype, is_thorough]

    def with_varied_inputs(self, count: int) -> list[Reference]:
        """References of the same model with other inputs than the sample's, seeded 1, 2, ...; see `vary_inputs`.

        They share this one's loaded model.

        Raises:
            ValueError: None of the inputs can be varied.
            RuntimeError: The model does not take them; torch's message says why.
        """
        missing = [seed for seed in range(1, count + 1) if seed not in self._varied]
        if missing:
            with self.model() as loaded:
                reserved = reserved_tokens(loaded.pipeline_model().config)
                for seed in missing:
                    other = copy.copy(self)
                    other._whole, other._varied = self, {}
                    other._errors, other._budgets, other._continuations = {}, {}, {}
                    other.inputs = vary_inputs(self.inputs, seed, reserved)
                    other.outputs = other._forward(loaded)
                    other.real_outputs = other._real(other.outputs)
                    self._varied[seed] = other
        return [self._varied[seed] for seed in range(1, count + 1)]

    def outputs_with(self, change: WeightChange) -> Tensors:
        """The outputs at real positions with one weight made wrong."""
        with self.model() as loaded, loaded.perturbed(change) as wrong:
            return self._real(self._forward(wrong))

    def close(self) -> None:
        """Free the model, if it is still loaded. It is loaded again when needed."""
        if self._small is not None:
            self._small.close()
            self._small = None

    def _forward(self, loaded: LoadedModel) -> Tensors:
        outputs = loaded.forward(self.inputs)
        return {name: leaf.double() if leaf.is_floating_point() else leaf for name, leaf in outputs.items()}

    def _real(self, outputs: Tensors) -> Tensors:
        return real_positions(outputs, self.inputs)

    def _emulate(self, dtype: str, runs: int) -> Budget:
        if dtype not in ("fp32", "fp16", "bf16"):
            return Budget(dtype, {}, f"no rounding is emulated for {dtype}")
        if self.dtype != "fp64":
            return Budget(dtype, {}, f"the reference is in {self.dtype} ({self.reason}), whose own rounding is in it")
        sample = {name: round_to(tensor, dtype) for name, tensor in self.inputs.items()}
        try:
            with self.model() as loaded:
                return emulate(
                    dtype, loaded.pipeline_model(), lambda: self._real(loaded.forward(sample)), self.real_outputs, runs
                )
        except (HfAccelError, RuntimeError, NotImplementedError, TypeError) as error:
            return Budget(dtype, {}, f"the reference does not run under emulated rounding: {error_line(error)}")

    def _measure_error(self, dtype: str) -> dict[str, LeafDifference]:
        try:
            with closing(self._load(dtype)) if dtype == "fp32" else self._borrow(dtype) as loaded:
                outputs = self._real(loaded.forward(self.inputs))
        except (HfAccelError, RuntimeError, NotImplementedError):
            return {}
        both = (name for name in self.real_outputs if name in outputs)
        return {name: difference(name, outputs[name], self.real_outputs[name]) for name in both}

    def _generate(self, max_new_tokens: int) -> Continuation:
        inputs = self._source.sample().generate
        if inputs is None:
            raise HfAccelError(f"{self._source.spec.name} has no inputs for generate", stage="run")
        try:
            with self.model() as loaded:
                return _continuation(loaded, inputs, max_new_tokens)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if self.dtype == "fp32":
                raise
            # A forward pass in fp64 that works says nothing of the code for one more token (XLNet).
            self.generation_reason = _not_in_fp64(error)
        with self._borrow("fp32") as loaded:
            return _continuation(loaded, inputs, max_new_tokens)


def _continuation(loaded: LoadedModel, inputs: Tensors, max_new_tokens: int) -> Continuation:
    import torch

    captured: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        if hasattr(output, "logits"):
            captured.append(output.logits[:, -1].detach().double().cpu())

    handle = loaded.pipeline_model().register_forward_hook(keep)
    try:
        tokens = loaded.generate(inputs, max_new_tokens=max_new_tokens, use_cache=True)
    finally:
        handle.remove()
    # One pass per token; passes before the first token (language detection) are left out.
    step_logits = torch.stack(captured[-tokens.shape[1] :], dim=1)
    return Continuation(tokens, step_logits, *_prompt_logits(loaded, inputs, step_logits[:, 0].shape))


def _prompt_logits(loaded: LoadedModel, inputs: Tensors, shape: torch.Size) -> tuple[torch.Tensor | None, str]:
    """Return the logits of that shape that `forward` gives after the prompts, or why there are none to compare."""
    if loaded.pipeline_model().config.is_encoder_decoder:
        return None, "an encoder-decoder begins with its own tokens"
    if is_padded(inputs):
        return None, "the prompts are padded, which moves positions"
    try:
        logits = loaded.forward(inputs).get("logits")
    except (RuntimeError, TypeError, ValueError) as error:
        return None, f"forward does not take what generate does: {type(error).__name__}: {error}"
    if logits is None or logits.ndim != 3 or logits[:, -1].shape != shape:
        return None, "forward gives no logits of the shape that generate chooses tokens by"
    return logits[:, -1].double(), ""


def compute_reference(source: ModelSource, load: Load, borrow: Borrow) -> Reference:
    """Run the model on the CPU in fp64, or in fp32 where fp64 does not fit or does not run.

    Args:
        source: The checkpoint.
        load: Loads it with torch on the CPU at a dtype, for the reference alone.
        borrow: The same for a `with` block; it may give a model that others use, too.

    Raises:
        HfAccelError: The model cannot be loaded at all.
        RuntimeError: It runs in neither dtype; torch's message says why.
    """
    reason = _too_large_for_fp64(source)
    if reason:
        return Reference(source, load, borrow, "fp32", reason)
    try:
        exact = Reference(source, load, borrow, "fp64", "")
    except (HfAccelError, RuntimeError, NotImplementedError, TypeError) as error:
        return Reference(source, load, borrow, "fp32", _not_in_fp64(error))
    if not _has_nan(exact):
        return exact
    # For example, a mask that is the lowest number of fp32 and is added to that of fp64.
    in_fp32 = Reference(source, load, borrow, "fp32", "fp64 gives NaN where fp32 gives numbers")
    return exact if _has_nan(in_fp32) else in_fp32


def _not_in_fp64(error: Exception) -> str:
    return f"fp64 does not run: {error_line(error)}"


def _has_nan(reference: Reference) -> bool:
    return any(bool(leaf.isnan().any()) for leaf in reference.outputs.values() if leaf.is_floating_point())


def _too_large_for_fp64(source: ModelSource) -> str:
    """Return why the model does not fit into memory; empty when it does, or has no safetensors files to tell by."""
    import psutil

    need = fp64_bytes(source)
    available = psutil.virtual_memory().available
    if need <= available:
        return ""
    return f"fp64 needs about {format_bytes(need)} of memory, {format_bytes(available)} are available"


def count_elements(source: ModelSource) -> int:
    """Return how many numbers the safetensors files of a checkpoint hold; 0 where it has none."""
    from safetensors import safe_open

    elements = 0
    for file in source.directory.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            elements += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return elements


def fp64_bytes(source: ModelSource) -> int:
    """Return about how much memory the reference of a checkpoint takes while it is computed."""
    return int(count_elements(source) * _BYTES_OF_FP64 * _HEADROOM)


def is_small(source: ModelSource) -> bool:
    """Whether a model stays in memory for later use; judged by the files of its checkpoint."""
    return sum(file.stat().st_size for file in source.directory.glob("*") if file.is_file()) <= SMALL_BYTES
