"""Inputs that transformers' exporter computes before it traces, because their loops over values fit into no graph.

Vision-language models turn the sizes of their images into positions and segments that way. A graph traced so takes the
computed tensors as inputs, for the shapes and sizes it was traced with; here they are computed for every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.openvino.shapes import FOLDED
from pytest_hfaccel.core.errors import LoadError

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import ModelSource

    Tensors = Mapping[str, torch.Tensor]


def precomputed(model: Any, inputs: Tensors) -> dict[str, Any]:
    """Return what the exporter computes of some inputs, by the name under which the model takes it.

    Args:
        model: The transformers model; its weights are not used.
        inputs: The inputs of a call of `forward`.

    Raises:
        LoadError: The exporter calls the model's code for it in a way that fails.
    """
    import torch
    from transformers.exporters.utils import precompute_export_inputs

    given: dict[str, Any] = {name: value for name, value in inputs.items() if name not in FOLDED}
    try:
        with torch.no_grad():
            precompute_export_inputs(model, given)
    except Exception as error:
        raise LoadError(
            f"{type(model).__name__} cannot be converted to OpenVINO: transformers' exporter fails to compute "
            f"some of its inputs: {type(error).__name__}: {error}",
            stage="convert",
        ) from error
    return {name: value for name, value in given.items() if name not in inputs}


class Precomputing:
    """Computes those inputs for the calls of one model.

    Args:
        source: The checkpoint, for its config; its weights are not read.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def added(self, inputs: Tensors) -> dict[str, Any]:
        """Return what is to be added to the inputs of a call; nothing for most models."""
        return precomputed(self._model, inputs) if self._model is not None else {}

    @cached_property
    def _model(self) -> Any:
        """The model without weights; `None` where its class cannot be made so, and its graph gets no such inputs."""
        import torch

        try:
            own = self._source.model_class()
            config = own.config_class.from_pretrained(self._source.directory, local_files_only=True)
            with torch.device("meta"):
                return own(config)
        except (AttributeError, ImportError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError):
            return None
