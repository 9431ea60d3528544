"""Which output of a batch belongs to which sample."""

from __future__ import annotations

import pytest

from pytest_hfaccel.numerics.positions import name_in_batch


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
