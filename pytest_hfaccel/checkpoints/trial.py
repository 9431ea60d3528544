"""Tiny checkpoints of classes that nobody has looked at: built one way after the other until a forward pass runs.

What the model gave in that pass is kept beside its weights, with the inputs where no processor makes them. So anybody
can tell whether saving and loading changed the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_hfaccel.checkpoints.attempts import Attempt, attempts
from pytest_hfaccel.checkpoints.building import building, write
from pytest_hfaccel.checkpoints.configs import tiny_config
from pytest_hfaccel.checkpoints.makers import make_processors
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import GENERIC, task_of

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

FILE = "trial.safetensors"
_SEED = 0

Recipe = Callable[[Path], "Tensors"]
"""Makes the inputs of the checkpoint in a directory by the recipe of its task."""


class Trial(NamedTuple):
    """What went into a model when it was built, and what came out.

    Attributes:
        inputs: The inputs, where the checkpoint has no processors to make them; else empty.
        outputs: The output's tensors by dotted name.
    """

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


def needs_trial(spec: ModelSpec) -> bool:
    """Whether a model is one of a class that no maker and no recipe was written for."""
    return "model_type" in spec.dims or task_of(spec).recipe == GENERIC


def build_tried(spec: ModelSpec, directory: Path, recipe: Recipe, *, seed: int) -> None:
    """Fill an empty directory with a checkpoint whose forward pass runs.

    Args:
        spec: The model.
        directory: Where it goes.
        recipe: Makes the inputs where the checkpoint has processors.
        seed: The same seed gives the same weights.

    Raises:
        CheckpointError: It cannot be written.
        LoadError: transformers could not build the model, or the model ran with no inputs we could think of.
    """
    with building(spec, directory):
        errors: list[Exception] = []
        told: Exception | None = None
        for attempt in attempts(spec, errors):
            try:
                return _build(spec, attempt, directory, recipe, seed)
            except Exception as error:
                # Whether a processor can be made says less about a model than whether it runs.
                told = told or (None if attempt.processed else error)
                errors.append(error)
                _empty(directory)
        raise told or errors[0]


def _build(spec: ModelSpec, attempt: Attempt, directory: Path, recipe: Recipe, seed: int) -> None:
    from pytest_hfaccel.checkpoints.inputs.generic import generic_inputs

    config = deepcopy(tiny_config(spec, attempt.sizes))
    processors = make_processors(config, spec) if attempt.processed else []
    model = write(spec, config, processors, directory, seed=seed)
    made = {} if attempt.processed else generic_inputs(model)
    outputs = run(model, made or recipe(directory))
    _keep(Trial(made, outputs), directory)


def run(model: Any, inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the outputs of one forward pass by dotted name, the same ones whenever a model draws random numbers."""
    import torch

    from pytest_hfaccel.backends.outputs import flatten_outputs

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return flatten_outputs(model(**inputs))


def load_trial(directory: Path) -> Trial | None:
    """Return what a checkpoint keeps of its trial, or `None` if it had none."""
    from safetensors.torch import load_file

    if not (directory / FILE).is_file():
        return None
    kinds: dict[str, dict[str, torch.Tensor]] = {"inputs": {}, "outputs": {}}
    for name, value in load_file(directory / FILE).items():
        kind, _, rest = name.partition(":")
        kinds[kind][rest] = value
    return Trial(**kinds)


def _keep(trial: Trial, directory: Path) -> None:
    from safetensors.torch import save_file

    named = {f"{kind}:{name}": value for kind, tensors in trial._asdict().items() for name, value in tensors.items()}
    # Outputs can share memory, which the format does not know.
    save_file({name: value.detach().clone().contiguous() for name, value in named.items()}, directory / FILE)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
