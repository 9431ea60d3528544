"""Taking one sample out of a batch."""

from __future__ import annotations

import pytest
import torch

from pytest_hfaccel.checks.rows import row_of_inputs, row_of_output

pytestmark = pytest.mark.slow


def test_an_input_gives_its_row_its_share_or_itself() -> None:
    inputs = {
        "input_ids": torch.arange(6).reshape(2, 3),
        "pixel_values": torch.arange(4).reshape(4, 1),  # two images per sample
        "scale": torch.tensor(2.0),
        "shared": torch.arange(3),
    }
    row = row_of_inputs(inputs, 1, batch=2)
    assert row["input_ids"].tolist() == [[3, 4, 5]]
    assert row["pixel_values"].tolist() == [[2], [3]]
    assert row["scale"].item() == 2.0
    assert row["shared"].tolist() == [0, 1, 2]


def test_an_output_is_cut_on_every_axis_that_the_batch_multiplies() -> None:
    logits = torch.arange(4).reshape(2, 2)  # CLIP: images x texts
    assert row_of_output(logits, torch.zeros(1, 1), 1, batch=2).tolist() == [[3]]
    hidden = torch.arange(12).reshape(2, 3, 2)
    assert row_of_output(hidden, torch.zeros(1, 3, 2), 0, batch=2).tolist() == hidden[:1].tolist()


def test_an_output_without_a_batch_axis_stays_whole() -> None:
    assert row_of_output(torch.arange(3), torch.zeros(3), 1, batch=2).tolist() == [0, 1, 2]


@pytest.mark.parametrize("alone", [torch.zeros(1, 4), torch.zeros(3)])
def test_other_shapes_cannot_be_compared(alone: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"alone, .* in the batch"):
        row_of_output(torch.zeros(2, 3), alone, 0, batch=2)
