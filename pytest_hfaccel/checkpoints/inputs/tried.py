"""Inputs without a processor: those the checkpoint was tried with when it was built, or new ones for its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.backends.base import SampleInputs

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint


def kept_inputs(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the inputs that lie beside the checkpoint's weights; none where its processors make them."""
    from pytest_hfaccel.checkpoints.trial import load_trial

    trial = load_trial(checkpoint.directory)
    return trial.inputs if trial else {}


def from_signature(checkpoint: Checkpoint) -> SampleInputs:
    """Make inputs for the parameters of `forward`."""
    from pytest_hfaccel.checkpoints.inputs.generic import generic_inputs

    return SampleInputs(generic_inputs(checkpoint.torch_model("fp32")))
