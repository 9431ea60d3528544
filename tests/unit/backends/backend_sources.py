"""Checkpoints for the tests of backends: built by the checkpoints package, or made up on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice

TINY = WeightsChoice(Weights.TINY, "test")


def make_cell(spec: ModelSpec, device: str = "cpu", dtype: str = "fp32") -> Cell:
    return Cell(spec, Device.parse(device), dtype, TINY)


def tiny_checkpoint(folder: Path, architecture: str, task: str, **dims: Any) -> Any:
    """Build a tiny checkpoint of a class; `dims` are fields of its config, e.g. for fewer layers."""
    spec = ModelSpec(architecture.lower(), architecture, task, dims=dims)
    return CheckpointStore(folder).prepare(spec, TINY)


@dataclass
class CountingSource:
    """A checkpoint that counts how often its weights were loaded with torch."""

    inner: Any
    torch_loads: int = 0

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        self.torch_loads += 1
        return self.inner.torch_model(dtype, device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class MadeUpSource:
    """A checkpoint whose model is made by a function, without files."""

    model: Any
    inputs: dict[str, Any]
    cache_dir: Path
    fingerprint: str = "made-up"
    spec: ModelSpec = field(default_factory=lambda: ModelSpec("made-up", "MadeUp", "feature-extraction"))

    @property
    def directory(self) -> Path:
        return self.cache_dir

    def model_class(self) -> Any:
        return type(self.model)

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:  # noqa: ARG002 - made for fp32 on the CPU
        return self.model

    def sample(self) -> SampleInputs:
        return SampleInputs(self.inputs)

    def processors(self) -> dict[str, Any]:
        return {}


def made_up_model(forward: Any, width: int = 4) -> Any:
    """Return a transformers model with one linear layer of `width` inputs and outputs, and a given forward."""
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    class MadeUp(PreTrainedModel):  # type: ignore[misc]
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.linear = torch.nn.Linear(width, width)
            self.post_init()

    MadeUp.forward = forward
    torch.manual_seed(0)
    return MadeUp(PretrainedConfig()).eval().requires_grad_(False)
