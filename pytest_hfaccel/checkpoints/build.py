"""Builds a checkpoint on disk: seeded weights, tokenizer and processors.

A class that no table knows is built in one way after the other until a forward pass runs. The outputs of that pass are
saved beside the weights, and the inputs where no processor makes them: they tell whether saving and loading changed the
model.
"""

from __future__ import annotations

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checkpoints.configs import ShrinkOptions, model_class, tiny_config
from pytest_hfaccel.checkpoints.fingerprint import SMOKE_FORWARD_FILE
from pytest_hfaccel.checkpoints.generic_inputs import generic_inputs
from pytest_hfaccel.checkpoints.processors import make_processors
from pytest_hfaccel.core.errors import CheckpointError, HfAccelError, LoadError, format_bytes, line_of_transformers
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import GENERIC, task_of
from pytest_hfaccel.upstream.transformers import quiet

Tensors = Mapping[str, torch.Tensor]

SEED = 0

InputRecipe = Callable[[Path], Tensors]
"""Makes the inputs of the checkpoint in a directory by the recipe of its task."""

_ROTARY_HALF = re.compile(r"split_sizes to sum exactly to (\d+)")

_GAIN = 0.8
"""How much the noise alone amplifies its input, whatever a layer's width: enough that tiny language models generate
varied tokens, too little to drown deep models in their own rounding errors."""

_VECTOR_NOISE = 0.1
"""Standard deviation of the noise on biases and on the weights of normalisations."""

_LEAST_NORM_WEIGHT = 0.5
"""The mean size of a normalisation's weights below which it lets too little through."""

_NORM_WEIGHT_OFFSET = 2.5
"""What is added to them. A batch normalisation that has seen no data yet does not normalise: this puts back what SiLU
and the gates of a block take away."""

_DISK_MARGIN = 1.1
_BYTES_PER_PARAMETER = 4

_SEED_LOCK = threading.Lock()
"""torch's generator belongs to the process: two models that draw from it at once would get each other's numbers."""


def build_checkpoint(spec: ModelSpec, config: Any, directory: Path) -> None:
    """Fill an empty directory with a checkpoint that `from_pretrained` and `pipeline` load.

    Args:
        spec: The model.
        config: The config of its class, tiny or of the real dimensions.
        directory: Where it goes.

    Raises:
        CheckpointError: The disk has no room for it.
        LoadError: transformers could not build the model.
    """
    with build_errors(spec, directory):
        _require_disk_space(directory, model_class(spec), config)
        _write(spec, config, directory)


class SmokeForward(NamedTuple):
    """What went into a model when it was built, and what came out.

    Attributes:
        inputs: The inputs, where the checkpoint has no processors to make them; else empty.
        outputs: The output's tensors by dotted name.
    """

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


def needs_smoke_forward(spec: ModelSpec) -> bool:
    """Whether no table and no recipe was written for a model's class, so that building it is a guess."""
    return "model_type" in spec.dims or task_of(spec).recipe == GENERIC


def build_until_it_runs(spec: ModelSpec, directory: Path, recipe: InputRecipe) -> None:
    """Fill an empty directory with a checkpoint whose forward pass runs.

    Args:
        spec: The model.
        directory: Where it goes.
        recipe: Makes the inputs where the checkpoint has processors.

    Raises:
        CheckpointError: It cannot be written.
        LoadError: transformers could not build the model, or it ran with none of the inputs we tried.
    """
    with build_errors(spec, directory):
        errors: list[Exception] = []
        without_processors: Exception | None = None
        for has_processors, options in _strategies(spec, errors):
            try:
                return _build_and_run(spec, has_processors, options, directory, recipe)
            except Exception as error:
                # Whether a processor can be made says less about a model than whether it runs.
                without_processors = without_processors or (None if has_processors else error)
                errors.append(error)
                for path in directory.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise without_processors or errors[0]


def _strategies(spec: ModelSpec, errors: list[Exception]) -> Iterator[tuple[bool, ShrinkOptions]]:
    """Yield the ways to build a model: whether it gets processors, and its inputs from them, and how it is shrunk.

    The caller appends to `errors` what went wrong with those before.
    """
    for has_processors in (False,) if task_of(spec).recipe == GENERIC else (True, False):
        yield has_processors, ShrinkOptions()
        # A default of None may stand for what every checkpoint states.
        yield has_processors, ShrinkOptions(filled=True)
    half = next((int(match[1]) for error in errors if (match := _ROTARY_HALF.search(str(error)))), None)
    if half is not None:
        # The code has its own default for the sections of the rotary embedding, made for the real head.
        yield False, ShrinkOptions(rotary_half=half)


def _build_and_run(
    spec: ModelSpec, has_processors: bool, options: ShrinkOptions, directory: Path, recipe: InputRecipe
) -> None:
    model = _write(spec, tiny_config(spec, options), directory, has_processors=has_processors)
    inputs = {} if has_processors else generic_inputs(model)
    outputs = run_forward(model, inputs or recipe(directory))
    named = {f"inputs:{name}": value for name, value in inputs.items()}
    named |= {f"outputs:{name}": value for name, value in outputs.items()}
    # Outputs can share memory, which the format does not know.
    tensors = {name: value.detach().clone().contiguous() for name, value in named.items()}
    save_file(tensors, directory / SMOKE_FORWARD_FILE)


def run_forward(model: Any, inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the outputs of one forward pass by dotted name, the same ones whenever a model draws random numbers."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return flatten_outputs(model(**inputs))


def load_smoke_forward(directory: Path) -> SmokeForward | None:
    """Return what a checkpoint keeps of the forward pass it was built with, or `None` if there was none."""
    if not (directory / SMOKE_FORWARD_FILE).is_file():
        return None
    kinds: dict[str, dict[str, torch.Tensor]] = {"inputs": {}, "outputs": {}}
    for name, value in load_file(directory / SMOKE_FORWARD_FILE).items():
        kind, _, rest = name.partition(":")
        kinds[kind][rest] = value
    return SmokeForward(**kinds)


@contextmanager
def build_errors(spec: ModelSpec, directory: Path) -> Iterator[None]:
    """Silence transformers, and raise our errors for what goes wrong inside.

    Raises:
        CheckpointError: The weights cannot be written.
        LoadError: transformers could not build the model.
    """
    try:
        with quiet:
            yield
    except (HfAccelError, OSError, MemoryError):
        raise
    except SafetensorError as error:
        # safetensors reports a full disk as an error of its own.
        raise CheckpointError(
            f"{directory.parent}: the weights cannot be written: {error}.",
            hint="Free space, or choose another directory with --hf-cache.",
        ) from error
    except Exception as error:
        raise LoadError(
            f"a {spec.architecture} cannot be built: {type(error).__name__}: {str(error).strip()}",
            cause=_cause_of(error),
        ) from error


def _cause_of(error: Exception) -> Cause:
    """Return whose doing it is that a model cannot be built.

    Sizes and inputs that do not fit are ours. A name that transformers' own code reads and that is not there, or an
    attribute that an object of its own does not have, is transformers', whatever the sizes; but an attribute of a
    config may be one that our config lacks.
    """
    if isinstance(error, ImportError):
        return Cause.PACKAGE
    is_theirs = isinstance(error, NameError)
    if isinstance(error, AttributeError):
        owner = type(error.obj)
        is_theirs = owner.__module__.startswith("transformers.") and not owner.__name__.endswith("Config")
    return Cause.TRANSFORMERS if is_theirs and line_of_transformers(error) else Cause.TINY_CHECKPOINT


def _write(spec: ModelSpec, config: Any, directory: Path, *, has_processors: bool = True) -> Any:
    """Save a seeded model of a config, and the processors that go with it; return the model."""
    config = deepcopy(config)
    processors = make_processors(config, spec) if has_processors else []  # may change the config
    with _SEED_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = model_class(spec)(config).eval()
        _perturb(model)
    for part in (model, *processors):
        part.save_pretrained(directory)
    return model


def _perturb(model: Any) -> None:
    """Add noise to every parameter.

    Fresh weights hide an exporter's mistakes: biases are zero and vanish, normalisations are identical and merge.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            # Without a gradient it is a table of sines, which a class computes again when it is loaded.
            if parameter.is_floating_point() and parameter.numel() and parameter.requires_grad:
                inputs = parameter.numel() / parameter.shape[0] if parameter.dim() > 1 else 0
                noise = torch.randn(parameter.shape, dtype=parameter.dtype)
                parameter.add_(noise, alpha=float(_GAIN / math.sqrt(inputs)) if inputs else _VECTOR_NOISE)
        for module in model.modules():
            if _is_near_zero_norm(module):
                module.weight += _NORM_WEIGHT_OFFSET
            # Some classes clear the padding token's vector when they are loaded.
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0


def _is_near_zero_norm(module: Any) -> bool:
    """Whether a normalisation multiplies by numbers around zero, as no trained one does.

    EfficientNet draws them so: after twenty layers nothing was left of the image, and the outputs were constants.
    """
    # Only torch's own: others may multiply by one plus the weight.
    norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.GroupNorm, torch.nn.LayerNorm)
    weight = module.weight if isinstance(module, norms) else None
    return weight is not None and float(weight.abs().mean()) < _LEAST_NORM_WEIGHT


def count_parameters(cls: Any, config: Any) -> int:
    """Return how many parameters a model of a class and a config has, without making them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in cls(deepcopy(config)).parameters())


def bytes_of_building(cls: Any, config: Any) -> int:
    """Return about how much memory building takes: the model in fp32, and once more while it is saved and read."""
    return 2 * _BYTES_PER_PARAMETER * count_parameters(cls, config)


def _require_disk_space(directory: Path, cls: Any, config: Any) -> None:
    """Refuse before the work is done: a full disk would disturb every process on the machine."""
    need = int(_DISK_MARGIN * _BYTES_PER_PARAMETER * count_parameters(cls, config))
    free = shutil.disk_usage(directory).free
    if need > free:
        raise CheckpointError(
            f"{directory.parent}: the checkpoint needs {format_bytes(need)}, {format_bytes(free)} are free.",
            hint="Free space, or choose another directory with --hf-cache.",
        )
