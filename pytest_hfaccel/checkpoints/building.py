"""Builds a checkpoint on disk: config, seeded weights, tokenizer and processors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.checkpoint import quiet
from pytest_hfaccel.checkpoints.configs import config_for, model_class
from pytest_hfaccel.checkpoints.makers import make_processors
from pytest_hfaccel.errors import CheckpointError, HfAccelError, LoadError
from pytest_hfaccel.spec import ModelSpec, Weights

_NOISE = 0.02
_SPARE = 1.1


def build_checkpoint(spec: ModelSpec, kind: Weights, directory: Path, *, seed: int) -> None:
    """Fill an empty directory with a checkpoint that `from_pretrained` and `pipeline` load.

    Args:
        spec: The model.
        kind: `tiny` or `random`.
        directory: Where it goes.
        seed: The same seed gives the same weights.

    Raises:
        CheckpointError: The disk has no room for it.
        LoadError: transformers could not build the model.
    """
    try:
        with quiet():
            config = config_for(spec, kind)
            processors = make_processors(config, spec)
            model = _seeded_model(model_class(spec), config, seed)
            need = int(_SPARE * sum(p.numel() * p.element_size() for p in model.parameters()))
            _demand_space(directory, need)
            model.save_pretrained(directory)
            for processor in processors:
                processor.save_pretrained(directory)
    except (HfAccelError, OSError, MemoryError):
        raise
    except Exception as error:
        raise LoadError(f"a {kind} {spec.architecture} cannot be built: {type(error).__name__}: {error}") from error


def _seeded_model(cls: Any, config: Any, seed: int) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
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
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype), alpha=_NOISE)


def _demand_space(directory: Path, need: int) -> None:
    free = shutil.disk_usage(directory).free
    if need > free:
        raise CheckpointError(
            f"{directory.parent}: the checkpoint needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free.",
            hint="Free space, or choose another directory with --hf-cache.",
        )
