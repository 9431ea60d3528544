"""A tiny model and the context of a check around it, made without the registry, the pool and the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.backends.torch.backend import TorchBackend
from pytest_hfaccel.checkpoints.described_model import DescribedModel
from pytest_hfaccel.checks import built_in_checks, planted
from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.spec import CPU, Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.numerics.reference import Reference, compute_reference

_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIZES = {
    "BertForMaskedLM": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
        "max_position_embeddings": 64,
    },
    "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 64},
}
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "is", "the", "capital", "of", "france", ".", "hot"]
_TASKS = {"BertForMaskedLM": "fill-mask", "GPT2LMHeadModel": "text-generation"}


class TinySource:
    """A checkpoint with seeded weights of an architecture in `_SIZES`, or with other `sizes`, in a directory."""

    fingerprint = "tiny"

    def __init__(self, architecture: str, directory: Path, **sizes: int) -> None:
        import transformers

        self.spec = ModelSpec(f"tiny-{architecture}", architecture, _TASKS[architecture])
        self.directory = self.cache_dir = directory
        self._class = getattr(transformers, architecture)
        self._sample = _sample(architecture)
        self.info: dict[str, list[str]] = {}
        torch.manual_seed(0)
        model = self._class(self._class.config_class(**{**_SIZES[architecture], **sizes}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(directory)

    def model_class(self) -> Any:
        return self._class

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        return self.torch_model_in(self.directory, dtype).to(device)

    def torch_model_in(self, directory: Path, dtype: str) -> Any:
        return self._class.from_pretrained(directory, dtype=_DTYPES[dtype]).eval()

    def loading_info(self) -> dict[str, Any]:
        return self.info

    def weight_problems(self, model: Any) -> list[str]:
        return DescribedModel(self.directory, lambda: self._class).differences(model)

    def sample(self) -> SampleInputs:
        return self._sample

    def processors(self) -> dict[str, Any]:
        from transformers import BertTokenizer

        words = _WORDS + [f"word{index}" for index in range(100 - len(_WORDS))]
        return {"tokenizer": BertTokenizer(vocab={word: index for index, word in enumerate(words)})}


def _sample(architecture: str) -> SampleInputs:
    ids = torch.arange(5, 19).reshape(2, 7)
    mask = torch.ones_like(ids)
    if architecture == "BertForMaskedLM":
        mask[1, 5:] = 0
    padded = {"input_ids": _right(ids, 3, 99), "attention_mask": _right(mask, 3, 0)}
    forward = {"input_ids": ids, "attention_mask": mask}
    return SampleInputs(
        forward,
        generate=forward if architecture == "GPT2LMHeadModel" else None,
        padded=padded,
        pipeline=("Paris is [MASK] france.",) if architecture == "BertForMaskedLM" else None,
    )


def _right(tensor: torch.Tensor, count: int, value: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, count), value=value)


def run(name: str, context: CheckContext) -> CheckOutcome:
    """Run a built-in check on a context."""
    return built_in_checks()[name].function(context)


def with_forward(context: TinyContext, change: Callable[..., Any]) -> TinyContext:
    """Replace the model's forward by `change(right forward, inputs)`."""
    context.loaded = planted.with_forward(context.loaded, change)
    return context


@dataclass
class TinyContext:
    """The context of a check on the CPU; `loaded` can be replaced by a model that misbehaves."""

    source: TinySource
    dtype: str = "fp32"
    device: Device = CPU
    claims: list[Any] = field(default_factory=list)
    outcomes: dict[str, CheckOutcome] = field(default_factory=dict)
    performance_request: Any = None
    budget_request: BudgetRequest = field(default_factory=BudgetRequest)
    pipe: Any = None
    """The pipeline; the BERT's own unless a test gives another."""

    def __post_init__(self) -> None:
        self.cell = Cell(self.source.spec, self.device, self.dtype, WeightsChoice(Weights.TINY, "test"))
        self.sample = self.source.sample()
        self.loaded: Any = self._load(self.dtype)
        self._reference: Reference | None = None
        if self.pipe is None and self.source.sample().pipeline:
            from transformers import pipeline

            self.pipe = pipeline("fill-mask", model=self.loaded.pipeline_model(), **self.source.processors())

    @property
    def reference(self) -> Reference:
        self._reference = self._reference or compute_reference(self.source, self._load, self.on_cpu)
        return self._reference

    @property
    def outputs(self) -> Any:
        return self.loaded.forward(self.sample.forward)

    @contextmanager
    def on_cpu(self, dtype: str) -> Iterator[Any]:
        loaded = self._load(dtype)
        yield loaded
        loaded.close()

    def outcome_of(self, name: str) -> CheckOutcome | None:
        return self.outcomes.get(name)

    def _load(self, dtype: str) -> Any:
        return TorchBackend().load(Cell(self.source.spec, CPU, dtype, WeightsChoice(Weights.TINY, "test")), self.source)
