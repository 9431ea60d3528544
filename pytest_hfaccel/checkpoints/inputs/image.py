"""Image inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.checkpoints.inputs.raw import need, picture

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint


def plain(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures."""
    processor = need(checkpoint, "image_processor")
    forward = dict(processor(images=[picture(0), picture(1)], return_tensors="pt"))
    options = {"threshold": 0.0} if checkpoint.spec.task == "object-detection" else {}
    return SampleInputs(forward=forward, pipeline=(picture(0),), pipeline_kwargs=options)


def with_points(checkpoint: Checkpoint) -> SampleInputs:
    """Two pictures, each with a point to segment at."""
    processor = need(checkpoint, "processor")
    points = [[[40, 35]], [[70, 50]]]
    forward = dict(processor(images=[picture(0), picture(1)], input_points=points, return_tensors="pt"))
    # The processor gives coordinates in fp64, which accelerators do not take.
    forward["input_points"] = forward["input_points"].float()
    return SampleInputs(forward=forward)
