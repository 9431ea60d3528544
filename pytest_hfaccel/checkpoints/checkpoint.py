"""A checkpoint on disk, loaded the way users load theirs: `from_pretrained`; and plainly, for references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.described_model import DescribedModel, tensors_of_other_heads, tensors_of_other_shape
from pytest_hfaccel.checkpoints.integrity import read_errors, require_intact_snapshot, require_sound_files
from pytest_hfaccel.checkpoints.pretrained.packages import name_missing_package
from pytest_hfaccel.core.errors import CheckpointError, HfAccelError, LoadError, NotWhatTheFilesHold
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.upstream.torch import skip_init_on_meta
from pytest_hfaccel.upstream.transformers import load_in_one_thread, quiet

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import SampleInputs


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
    _described: DescribedModel | None = field(default=None, repr=False)
    _unfit: HfAccelError | None = field(default=None, repr=False)

    def model_class(self) -> Any:
        """Return the model's class: of transformers, or of the code in the directory where that may run.

        Raises:
            LoadError: There is no such class.
        """
        from pytest_hfaccel.checkpoints.configs import model_class
        from pytest_hfaccel.checkpoints.pretrained.remote_code import remote_class

        return remote_class(self.directory, self.spec) if self.trust_remote_code else model_class(self.spec)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process makes for itself."""
        return {name: None if name.startswith("_") else value for name, value in vars(self).items()}

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode; see `ModelSource.torch_model`.

        What was loaded is compared with the files, so that no device is blamed for what went wrong before it.
        """
        return self._checked_model(dtype).to(device)

    def split_model(self, dtype: str, split: Mapping[str, Any]) -> Any:
        """Load a model that is split over devices; see `SplittableSource.split_model`. It is compared as any other."""
        return self._checked_model(dtype, split)

    def _checked_model(self, dtype: str, split: Mapping[str, Any] | None = None) -> Any:
        described = self.require_fit()
        model, info = self._load(self.directory, dtype, split)
        if info["missing_keys"] and split:
            names = ", ".join(sorted(map(str, info["missing_keys"])))
            raise LoadError(f"{self.directory} lacks {names}, which would be drawn anew in each part of a split model.")
        if info["missing_keys"] and dtype not in ("fp32", "fp64"):
            # They are random, and other numbers in another dtype: those of the reference are in fp32.
            model = self._load(self.directory, "fp32")[0].to(model.dtype)
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        unexpected = set(map(str, info["unexpected_keys"]))
        others = tensors_of_other_heads(type(model), model.config, unexpected) if unexpected else set()
        misshapen = tensors_of_other_shape(info)
        problems = misshapen or described.differences(model, ignored=unexpected)
        if problems:
            error = NotWhatTheFilesHold(
                f"{self.directory}: what {type(model).__name__}.from_pretrained made is not what the files hold:\n"
                + "\n".join(problems),
                hint="No device has a part in this: it is wrong as soon as it is loaded.",
            )
            self._unfit = error if misshapen else None
            raise error
        self._loading_info = {
            "missing_keys": sorted(map(str, info["missing_keys"])),
            "unexpected_keys": sorted(unexpected - others),
            "other_heads": sorted(others),
        }
        if dtype == "fp64":
            use_eager_experts(model)
        return model

    def weight_problems(self, model: Any) -> list[str]:
        """Return what a loaded model has differently from the files; see `ModelSource.weight_problems`."""
        info = self.loading_info()
        ignored = [*info["unexpected_keys"], *info["other_heads"]]
        return self.require_fit().differences(model, ignored=ignored, has_run=True)

    def require_fit(self) -> DescribedModel:
        """Return the model that the files describe, once they are known to be sound and to fit the class.

        To be called before the model is loaded: what does not fit may take forever to load, or fill the memory.

        Raises:
            CheckpointError: They are damaged or do not fit; always the same object, so that it is reported once.
        """
        if self._unfit is not None:
            raise self._unfit
        if self._described is None:
            try:
                self._described = self._checked_description()
            except HfAccelError as error:
                self._unfit = error
                raise
        return self._described

    def _checked_description(self) -> DescribedModel:
        is_pretrained = self.weights.kind is Weights.PRETRAINED
        with name_missing_package(self.spec), read_errors(self.directory, allow_pickle=self.allow_pickle):
            if is_pretrained:
                require_intact_snapshot(self.directory, self.cache_dir / "intact")
                require_sound_files(self.directory, allow_pickle=self.allow_pickle)
            described = DescribedModel(self.directory, self.model_class)
            described.require_fit()
        if is_pretrained and described.vocabulary:
            self._require_tokens_below(described.vocabulary)
        return described

    def _require_tokens_below(self, rows: int) -> None:
        try:
            ids = self.sample().forward.get("input_ids")
        except Exception:  # The check that needs the inputs reports what is wrong with them.
            return
        if ids is not None and not ids.is_floating_point() and ids.numel() and int(ids.max()) >= rows:
            raise CheckpointError(
                f"{self.directory}: the tokenizer gives the token {int(ids.max())}, and the model's word vectors have "
                f"{rows} rows: it is the tokenizer of another model.",
                hint="Save the tokenizer that belongs to the weights beside them.",
            )

    def torch_model_in(self, directory: Path, dtype: str) -> Any:
        """Load the model from where it was saved again; see `ModelSource.torch_model_in`."""
        return self._load(directory, dtype)[0]

    def _load(self, directory: Path, dtype: str, split: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the model that `from_pretrained` makes of a directory, in eval mode, and what it says of the keys."""
        import torch

        names = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if dtype not in names:
            raise LoadError(f"{dtype!r} is not a dtype of torch models. Allowed: {', '.join(names)}.")
        threads = load_in_one_thread if self.weights.kind is Weights.TINY else nullcontext()
        with name_missing_package(self.spec), read_errors(directory, allow_pickle=self.allow_pickle), quiet, threads:
            model_class = self.model_class()  # imports transformers, which keeps what it then finds in `torch.nn.init`
            with skip_init_on_meta, same_random_weights():
                model, info = model_class.from_pretrained(
                    directory,
                    dtype=names[dtype],
                    local_files_only=True,
                    use_safetensors=None if self.allow_pickle else True,
                    trust_remote_code=self.trust_remote_code,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # `tensors_of_other_shape` names them
                    **(split or {}),
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
        """What the last load found; see `ModelSource.loading_info`. Loads if nothing has been loaded."""
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

            with read_errors(self.directory, allow_pickle=self.allow_pickle), quiet:
                self._processors = load_processors(self.directory, trust_remote_code=self.trust_remote_code)
        return self._processors


class ReferenceSource:
    """A checkpoint whose models are those of a plain `from_pretrained`, for references in fp64 or fp32.

    A reference loaded in the same way as the model it judges would share its faults. Nothing here is ours but that
    transformers is silent. Another implementation of `pytest_hfaccel.backends.base.ModelSource`.

    Args:
        checkpoint: The checkpoint. It answers everything but `torch_model`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode; see `ModelSource.torch_model`."""
        source = self._checkpoint
        source.require_fit()
        with name_missing_package(source.spec), read_errors(source.directory, allow_pickle=source.allow_pickle), quiet:
            model, info = self._load(dtype)
            if info["missing_keys"] and dtype != "fp32":
                # They are random, and other numbers in another dtype.
                model = self._load("fp32")[0].to(model.dtype)
        if dtype == "fp64":
            # Tables of sines and the like keep the dtype in which their class computes them.
            model = use_eager_experts(model.double())
        return model.eval().requires_grad_(False).to(device)

    def _load(self, dtype: str) -> tuple[Any, dict[str, Any]]:
        import torch

        source = self._checkpoint
        with same_random_weights():
            model, info = source.model_class().from_pretrained(
                source.directory,
                dtype={"fp64": torch.float64, "fp32": torch.float32}[dtype],
                local_files_only=True,
                use_safetensors=None if source.allow_pickle else True,
                trust_remote_code=source.trust_remote_code,
                output_loading_info=True,
            )
        return model, info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)


@contextmanager
def same_random_weights() -> Iterator[None]:
    """Make the random weights that a checkpoint lacks the same every time; torch's generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def use_eager_experts(model: Any) -> Any:
    """Make a mixture of experts compute one expert after the other, as `torch._grouped_mm` knows no fp64; return it."""
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model
