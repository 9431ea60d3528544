"""A checkpoint on disk, loaded the way users load theirs: `from_pretrained`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.fp64 import with_plain_experts
from pytest_hfaccel.checkpoints.in_one_thread import in_one_thread
from pytest_hfaccel.checkpoints.packages import packages_named
from pytest_hfaccel.checkpoints.quiet import quiet
from pytest_hfaccel.checkpoints.reading import reading
from pytest_hfaccel.checkpoints.undrawn import undrawn
from pytest_hfaccel.errors import LoadError
from pytest_hfaccel.spec import ModelSpec, Weights, WeightsChoice

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import SampleInputs

_KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys")


@dataclass
class Checkpoint:
    """A checkpoint; the implementation of `pytest_hfaccel.backends.base.ModelSource`.

    Attributes:
        spec: The model.
        weights: Which weights it has, and why.
        directory: Where it lies.
        fingerprint: Hash of everything its content depends on.
        cache_dir: Where backends may keep what they derive from it.
        trust_remote_code: Whether the model's class comes from code in the directory, which the user allowed to run.
        allow_pickle: Whether weights that are not safetensors may be loaded.
    """

    spec: ModelSpec
    weights: WeightsChoice
    directory: Path
    fingerprint: str
    cache_dir: Path
    trust_remote_code: bool = False
    allow_pickle: bool = False
    _sample: SampleInputs | None = field(default=None, repr=False)
    _processors: dict[str, Any] | None = field(default=None, repr=False)
    _loading_info: dict[str, list[str]] | None = field(default=None, repr=False)
    _parameters: int | None = field(default=None, repr=False)

    def model_class(self) -> Any:
        """Return the model's class: of transformers, or of the code in the directory where that may run.

        Raises:
            LoadError: There is no such class.
        """
        from pytest_hfaccel.checkpoints.configs import model_class
        from pytest_hfaccel.checkpoints.remote_code import remote_class

        return remote_class(self.directory, self.spec) if self.trust_remote_code else model_class(self.spec)

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode; see `ModelSource.torch_model`."""
        model, info = self._read(self.directory, dtype)
        self._loading_info = {key: sorted(map(str, info.get(key) or ())) for key in _KEYS}
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        if dtype == "fp64":
            with_plain_experts(model)
        return model.to(device)

    def torch_model_in(self, directory: Path, dtype: str) -> Any:
        """Load the model from where it was saved again; see `ModelSource.torch_model_in`."""
        return self._read(directory, dtype)[0]

    def _read(self, directory: Path, dtype: str) -> tuple[Any, dict[str, Any]]:
        """Return the model that `from_pretrained` makes of a directory, in eval mode, and what it says of the keys."""
        import torch

        names = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if dtype not in names:
            raise LoadError(f"{dtype!r} is not a dtype of torch models. Allowed: {', '.join(names)}.")
        threads = in_one_thread if self.weights.kind is Weights.TINY else nullcontext()
        with packages_named(self.spec), reading(directory, allow_pickle=self.allow_pickle), quiet, threads:
            model_class = self.model_class()  # imports transformers, which keeps what it then finds in `torch.nn.init`
            with undrawn:
                model, info = model_class.from_pretrained(
                    directory,
                    dtype=names[dtype],
                    local_files_only=True,
                    use_safetensors=None if self.allow_pickle else True,
                    trust_remote_code=self.trust_remote_code,
                    output_loading_info=True,
                )
        return model.eval().requires_grad_(False), info

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones counted once; loads the model if nothing has been loaded."""
        if self._parameters is None:
            self.torch_model("fp32")
        assert self._parameters is not None  # noqa: S101
        return self._parameters

    def loading_info(self) -> dict[str, list[str]]:
        """What the last load found: `missing_keys`, `unexpected_keys`, `mismatched_keys`; loads if nothing has been."""
        if self._loading_info is None:
            self.torch_model("fp32")
        assert self._loading_info is not None  # noqa: S101
        return self._loading_info

    def sample(self) -> SampleInputs:
        """The inputs of this model; the same object on every call."""
        if self._sample is None:
            from pytest_hfaccel.checkpoints.inputs import make_sample

            self.processors()
            with quiet:
                self._sample = make_sample(self)
        return self._sample

    def processors(self) -> dict[str, Any]:
        """The tokenizer and processors of the checkpoint, by the names `transformers.pipeline` gives them."""
        if self._processors is None:
            from pytest_hfaccel.checkpoints.processors import load_processors

            with reading(self.directory, allow_pickle=self.allow_pickle), quiet:
                self._processors = load_processors(self.directory, trust_remote_code=self.trust_remote_code)
        return self._processors
