"""Image inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.digits import held_out_digits
from pytest_hfaccel.checkpoints.inputs.raw import need, picture
from pytest_hfaccel.core.spec import Weights

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint


def plain(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures; digits for a model that was trained on them."""
    processor = need(checkpoint, "image_processor")
    trained = checkpoint.spec.trained and checkpoint.weights.kind == Weights.PRETRAINED
    pictures = held_out_digits()[0][:2] if trained else [picture(0), picture(1)]
    forward = dict(processor(images=pictures, return_tensors="pt"))
    options = {"threshold": 0.0} if checkpoint.spec.task == "object-detection" else {}
    return SampleInputs(forward=forward, pipeline=(pictures[0],), pipeline_kwargs=options)


def with_points(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a point to segment at."""
    processor = need(checkpoint, "processor")
    points = [[[40, 35]], [[70, 50]]]
    forward = dict(processor(images=[picture(0), picture(1)], input_points=points, return_tensors="pt"))
    # The processor gives coordinates in fp64, which accelerators do not take.
    forward["input_points"] = forward["input_points"].float()
    return SampleInputs(forward=forward)
