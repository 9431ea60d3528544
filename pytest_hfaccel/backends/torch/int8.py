"""Weight-only int8 on torch devices: torchao rounds the weights of linear layers to 8 bits.

Activations, and all weights that are not those of linear layers (embeddings, norms, convolutions), stay in fp32.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch

from pytest_hfaccel.backends.base import Placement, WeightChange
from pytest_hfaccel.backends.torch.model import TorchModel
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device

INT8 = "int8"
Make = Callable[[WeightChange | None], TorchModel]


def require_torchao(device: Device) -> None:
    """Make sure that weights can be rounded here.

    Raises:
        BackendUnavailable: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise BackendUnavailable(
            f"{device}: int8 needs torchao, which rounds the weights, and it is not installed.",
            stage="load",
            hint="pip install 'pytest-hfaccel[int8]' installs it. OpenVINO devices run int8 with NNCF instead.",
        )


def quantize(model: Any) -> Any:
    """Round the weights of a model's linear layers to signed 8 bits, with one scale per output channel; in place.

    GPT-2's `Conv1D`, a linear layer with its weight transposed, is replaced by a linear layer first.
    """
    with _quiet():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__ == "Conv1D" and hasattr(child, "nf"):
                    setattr(parent, name, _as_linear(child))
        quantize_(model, Int8WeightOnlyConfig())
    return model


class Int8Model(TorchModel):
    """A loaded model with 8-bit weights.

    Args:
        model: The transformers model, its weights rounded.
        placement: Where it is.
        nbytes: Bytes it holds.
        timings: Seconds per stage of loading.
        make: Makes the model anew, with a weight changed before it is rounded.
    """

    def __init__(self, model: Any, placement: Placement, nbytes: int, timings: dict[str, float], make: Make) -> None:
        super().__init__(model, torch.float32, placement, nbytes, timings)
        self._make = make

    @contextlib.contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong: another one beside this one.

        A change of a rounded weight would itself be rounded, to nothing or to the next step.
        """
        wrong = self._make(change)
        try:
            yield wrong
        finally:
            wrong.close()


def _as_linear(layer: Any) -> torch.nn.Linear:
    with torch.device("meta"):
        linear = torch.nn.Linear(layer.nx, layer.nf)
    linear.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous(), requires_grad=False)
    linear.bias = layer.bias
    return linear


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the remarks torchao makes while it is imported, about kernels for other machines, out of the test run."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
