"""Which positions of an output are compared, and which output of a batch belongs to which sample."""

from __future__ import annotations

import pytest
import torch

from pytest_hfaccel.numerics.positions import name_in_batch, real_positions

MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
LEAF = torch.arange(12.0).reshape(2, 3, 2)


def test_padding_is_left_out_of_outputs_with_a_row_per_token() -> None:
    cut = real_positions({"logits": LEAF, "pooled": LEAF[:, 0]}, {"attention_mask": MASK})
    assert cut["logits"].tolist() == [[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]
    assert cut["pooled"] is not LEAF
    assert cut["pooled"].shape == (2, 2)


def test_without_a_mask_everything_counts() -> None:
    assert real_positions({"logits": LEAF}, {"input_ids": MASK})["logits"] is LEAF


def test_each_side_of_an_encoder_decoder_has_its_own_mask() -> None:
    outputs = {"logits": LEAF, "encoder_last_hidden_state": LEAF}
    inputs = {"attention_mask": MASK, "decoder_input_ids": MASK}
    cut = real_positions(outputs, inputs)
    assert cut["encoder_last_hidden_state"].shape == (5, 2)
    assert cut["logits"] is LEAF
    inputs["decoder_attention_mask"] = torch.tensor([[1, 0, 0], [1, 1, 0]])
    assert real_positions(outputs, inputs)["logits"].shape == (3, 2)


def test_a_mask_of_another_length_is_about_something_else() -> None:
    assert real_positions({"frames": LEAF}, {"attention_mask": torch.ones(2, 7)})["frames"] is LEAF


@pytest.mark.parametrize(
    ("name", "alone", "together", "row", "place"),
    [
        ("logits", ["logits"], ["logits"], 1, "logits"),
        # Layers: as many alone as in the batch.
        ("hidden.1", ["hidden.0", "hidden.1"], ["hidden.0", "hidden.1"], 1, "hidden.1"),
        # Images: one per sample.
        ("images.0", ["images.0"], ["images.0", "images.1"], 1, "images.1"),
        # Two images per sample.
        ("images.1", ["images.0", "images.1"], [f"images.{i}" for i in range(4)], 1, "images.3"),
        # Layers of images.
        (
            "deep.1.0.0",
            ["deep.0.0.0", "deep.1.0.0"],
            [f"deep.{a}.{b}.0" for a in (0, 1) for b in (0, 1)],
            1,
            "deep.1.1.0",
        ),
        ("images.0", ["images.0"], ["images.0", "images.1"], 0, "images.0"),
    ],
)
def test_the_name_of_a_samples_output_in_the_batch(
    name: str, alone: list[str], together: list[str], row: int, place: str
) -> None:
    assert name_in_batch(name, alone, together, row, 2) == place
