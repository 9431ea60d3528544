"""Builds a checkpoint on disk: seeded weights, tokenizer and processors."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.configs import model_class
from pytest_hfaccel.checkpoints.makers import make_processors
from pytest_hfaccel.core.errors import CheckpointError, HfAccelError, LoadError, format_bytes
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.upstream.transformers import quiet

_GAIN = 0.8
"""How much the noise alone amplifies its input, whatever a layer's width: enough that tiny language models generate
varied tokens, too little to drown deep models in their own rounding errors."""

_VECTOR_NOISE = 0.1
"""Standard deviation of the noise on biases and on the weights of normalisations."""

_MUTED = 0.5
"""The mean size of a normalisation's weights below which it lets too little through."""

_AUDIBLE = 2.5
"""What is added to them. A batch normalisation that has seen no data yet does not normalise: this puts back what SiLU
and the gates of a block take away."""

_SPARE = 1.1
_BYTES_PER_PARAMETER = 4

_SEEDED = threading.Lock()
"""torch's generator belongs to the process: two models that draw from it at once would get each other's numbers."""


def build_checkpoint(spec: ModelSpec, config: Any, directory: Path, *, seed: int) -> None:
    """Fill an empty directory with a checkpoint that `from_pretrained` and `pipeline` load.

    Args:
        spec: The model.
        config: The config of its class, tiny or of the real dimensions.
        directory: Where it goes.
        seed: The same seed gives the same weights.

    Raises:
        CheckpointError: The disk has no room for it.
        LoadError: transformers could not build the model.
    """
    config = deepcopy(config)
    with building(spec, directory):
        processors = make_processors(config, spec)
        _demand_space(directory, model_class(spec), config)
        write(spec, config, processors, directory, seed=seed)


def write(spec: ModelSpec, config: Any, processors: Sequence[Any], directory: Path, *, seed: int) -> Any:
    """Save a seeded model of a config, and the processors that go with it; return the model."""
    model = _seeded_model(model_class(spec), config, seed)
    model.save_pretrained(directory)
    for processor in processors:
        processor.save_pretrained(directory)
    return model


@contextmanager
def building(spec: ModelSpec, directory: Path) -> Iterator[None]:
    """Silence transformers, and turn what goes wrong inside into our errors.

    Raises:
        CheckpointError: The weights cannot be written.
        LoadError: transformers could not build the model.
    """
    from safetensors import SafetensorError

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
            f"a {spec.architecture} cannot be built: {type(error).__name__}: {str(error).strip()}"
        ) from error


def _seeded_model(cls: Any, config: Any, seed: int) -> Any:
    import torch

    with _SEEDED, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(config).eval()
        _perturb(model)
    return model


def _perturb(model: Any) -> None:
    """Add noise to every parameter.

    Fresh weights hide an exporter's mistakes: biases are zero and vanish, normalisations are identical and merge.
    """
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if _is_learned(parameter):
                noise = torch.randn(parameter.shape, dtype=parameter.dtype)
                parameter.add_(noise, alpha=_noise_level(parameter))
        for module in model.modules():
            if _is_muted(module):
                module.weight += _AUDIBLE
            # Some classes clear the padding token's vector when they are loaded.
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0


def _is_muted(module: Any) -> bool:
    """Whether a normalisation multiplies by numbers around zero, as no trained one does.

    EfficientNet draws them so: after twenty layers nothing was left of the image, and the outputs were constants.
    """
    from torch.nn import GroupNorm, LayerNorm
    from torch.nn.modules.batchnorm import _BatchNorm

    # Only torch's own: others may multiply by one plus the weight.
    weight = module.weight if isinstance(module, (_BatchNorm, GroupNorm, LayerNorm)) else None
    return weight is not None and float(weight.abs().mean()) < _MUTED


def _is_learned(parameter: Any) -> bool:
    """Whether a parameter is more than a table of sines, which a class computes again when it is loaded."""
    return bool(parameter.is_floating_point() and parameter.numel() and parameter.requires_grad)


def _noise_level(parameter: Any) -> float:
    if parameter.dim() < 2:
        return _VECTOR_NOISE
    inputs = parameter.numel() / parameter.shape[0]
    return float(_GAIN / math.sqrt(inputs))


def _demand_space(directory: Path, cls: Any, config: Any) -> None:
    """Refuse before the work is done: filling the disk would disturb everybody else on the machine."""
    import torch

    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in cls(deepcopy(config)).parameters())
    need, free = int(_SPARE * _BYTES_PER_PARAMETER * parameters), shutil.disk_usage(directory).free
    if need > free:
        raise CheckpointError(
            f"{directory.parent}: the checkpoint needs {format_bytes(need)}, {format_bytes(free)} are free.",
            hint="Free space, or choose another directory with --hf-cache.",
        )
