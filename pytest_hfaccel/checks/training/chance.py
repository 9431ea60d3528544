"""Training without chance: dropout off, and what remains of it seeded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

SEED = 0
HOW = "dropout, layer drop and SpecAugment are off; what chance remains is seeded"


def without_dropout(model: Any) -> Any:
    """Switch off what a model drops or masks at random in training mode; in place.

    Whatever is named after dropping (`dropout`, `layerdrop`, `drop_path`) is set to 0, in the modules and in the
    configs, which some classes read while they run. Caches are switched off, too: gradient checkpointing has no use
    for them, and says so in a warning.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero_drops(module)
    for config in _configs(model):
        _zero_drops(config)
        for name, value in (("apply_spec_augment", False), ("use_cache", False)):
            if hasattr(config, name):
                setattr(config, name, value)
    return model


@contextlib.contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Draw the same random numbers in every such block, and leave the generators outside as they were."""
    import numpy as np

    state = np.random.get_state()  # of the generator that transformers draws masks from
    devices = [device.index or 0] if device.type in ("cuda", "xpu") else []
    kind = device.type if devices else "cuda"
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(state)


def _zero_drops(owner: Any) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, float) and "drop" in name:
            setattr(owner, name, 0.0)


def _configs(model: Any) -> Iterator[Any]:
    """Give every config in a model once: those of its modules, too, because T5's decoder works on a copy."""
    from transformers import PretrainedConfig

    waiting = [
        module.config for module in model.modules() if isinstance(getattr(module, "config", None), PretrainedConfig)
    ]
    seen: set[int] = set()
    while waiting:
        config = waiting.pop()
        if id(config) in seen:
            continue
        seen.add(id(config))
        yield config
        waiting += [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
