"""A model on fake tensors, whose passes are recorded.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from pytest_hfaccel.core.errors import HfAccelError, LoadError
from pytest_hfaccel.tracing.input_shapes import text_length
from pytest_hfaccel.tracing.recording import Recording, Subject
from pytest_hfaccel.tracing.torch.forward import inputs_for, run_forward
from pytest_hfaccel.tracing.torch.meta_model import meta_model, swap_for_fakes
from pytest_hfaccel.tracing.torch.passes import Pass, record_forward, record_step
from pytest_hfaccel.tracing.weights import tensor_bytes, weights_of
from pytest_hfaccel.upstream.transformers import quiet


class FakeModel:
    """A model of real dimensions without memory, to be recorded at any batch size.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs; models with fewer positions take fewer.
        dtype: dtype it is built at: `fp32`, `bf16`, `fp16` or `fp64`.
        training: Whether training steps are recorded, else forward passes.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """

    def __init__(
        self, architecture: str, dims: Mapping[str, Any], *, length: int, dtype: str = "fp32", training: bool = False
    ) -> None:
        self._architecture, self._dtype, self._training = architecture, dtype, training
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._model = meta_model(architecture, dims, dtype)
        self._length = text_length(self._model.config, length)
        with self._mode:
            self._tensors = swap_for_fakes(self._model)

    def record(self, batch: int) -> Recording:
        """Run one pass and record it.

        Raises:
            LoadError: There is no pass on fake tensors: what the model does may depend on values.
            ConfigError: The model takes text, and the length is 0.
        """
        try:
            with self._mode, quiet:
                found = self._run(batch)
        except HfAccelError:
            raise
        except Exception as error:
            # Models' code can fail in any way.
            problem = f"no pass on fake tensors: {type(error).__name__}: {error}"[:300]
            raise LoadError(f"{self._architecture}: {problem}", stage="run") from error
        recorder = found.recorder
        return Recording(self._subject(found), batch, tuple(recorder.operators), tuple(recorder.curve), found.output)

    def _run(self, batch: int) -> Pass:
        inputs = inputs_for(self._model, batch, self._length)
        run = record_step if self._training else record_forward
        return run(self._model, self._tensors, inputs, lambda model, given: run_forward(model, given, self._length))

    def _subject(self, found: Pass) -> Subject:
        multiplied = list(found.recorder.multiplied.values())
        return Subject(
            architecture=self._architecture,
            length=self._length,
            dtype=self._dtype,
            training=self._training,
            weights=weights_of(self._model),
            multiplied_bytes=sum(map(tensor_bytes, multiplied)),
            multiplied_matrices=sum(tensor.numel() for tensor in multiplied if tensor.dim() > 1),
            multiplied_vectors=sum(tensor.numel() for tensor in multiplied if tensor.dim() < 2),
            optimizer_bytes=found.optimizer_bytes,
        )
