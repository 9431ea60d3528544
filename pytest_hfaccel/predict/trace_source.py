"""The traces predictions are made from."""

from __future__ import annotations

from pathlib import Path

from pytest_hfaccel.advisor.naming import NamedModel
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.tracing.trace import ModelTrace


class TraceSource:
    """Traces models once, and remembers why one could not be traced.

    A model that reads no text does the same at any length: it is traced at the first length that was asked for.

    Args:
        cache_dir: Where traces are remembered between processes.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._problems: dict[tuple[str, int, bool], str] = {}
        self._only_length: dict[tuple[str, bool], int] = {}

    def at(self, model: NamedModel, *, batch: int, length: int, dtype: str, training: bool) -> ModelTrace | None:
        """Return what a model does at a point, or `None`; `problem` says why.

        Args:
            model: The model.
            batch: Samples.
            length: Tokens per sample of text inputs.
            dtype: dtype of weights and activations.
            training: Whether a training step is meant.
        """
        length = self._only_length.get((model.key, training), length)
        place = (model.key, length, training)
        if not model.architecture or place in self._problems:
            return None
        from pytest_hfaccel.tracing.traces import trace_of

        try:
            trace = trace_of(
                model.architecture,
                model.dims,
                batch=batch,
                length=length,
                dtype=dtype,
                training=training,
                cache_dir=self._cache_dir,
            )
        except HfAccelError as error:
            self._problems[place] = error.message
            return None
        if not reads_text(trace):
            self._only_length[model.key, training] = length
        return trace

    def problem(self, model: NamedModel, length: int, training: bool) -> str:
        """Say why a model has no trace."""
        return self._problems.get((model.key, length, training), model.origin)


def reads_text(trace: ModelTrace) -> bool:
    """Whether a model looks up tokens in a table, so that what it does depends on their number."""
    return any(operator.name == "embedding" for operator in trace.operators)
