"""A checkpoint on disk, loaded the way users load theirs: `from_pretrained`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.errors import CheckpointError, LoadError
from pytest_hfaccel.spec import ModelSpec, WeightsChoice

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
        trust_remote_code: Whether code in the directory may run.
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

    def model_class(self) -> Any:
        """Return the transformers class.

        Raises:
            LoadError: This transformers has no such class.
        """
        import transformers

        if self.trust_remote_code:
            return transformers.AutoModel
        found = getattr(transformers, self.spec.architecture, None)
        if found is None:
            raise LoadError(
                f"transformers {transformers.__version__} has no class {self.spec.architecture!r}.", stage="resolve"
            )
        return found

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode; see `ModelSource.torch_model`."""
        import torch

        names = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        with reading(self.directory), quiet():
            model, info = self.model_class().from_pretrained(
                self.directory,
                dtype=names[dtype],
                local_files_only=True,
                use_safetensors=None if self.allow_pickle else True,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
            )
        self._loading_info = {key: sorted(map(str, info.get(key) or ())) for key in _KEYS}
        return model.to(device).eval().requires_grad_(False)

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

            self._sample = make_sample(self)
        return self._sample

    def processors(self) -> dict[str, Any]:
        """The tokenizer and processors of the checkpoint, by the names `transformers.pipeline` gives them."""
        if self._processors is None:
            from pytest_hfaccel.checkpoints.processors import load_processors

            with reading(self.directory), quiet():
                self._processors = load_processors(self.directory, trust_remote_code=self.trust_remote_code)
        return self._processors


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Turn what goes wrong while reading a checkpoint into our errors."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(
            f"{directory}: the safetensors weights cannot be read: {error}.",
            hint="The file is damaged or incomplete; download or save the checkpoint again.",
        ) from error
    except MemoryError:
        raise
    except OSError as error:
        raise CheckpointError(f"{directory}: the checkpoint cannot be read: {_first_line(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise LoadError(f"{directory}: {type(error).__name__}: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings out of a test run's output."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
