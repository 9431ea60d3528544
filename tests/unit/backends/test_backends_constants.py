"""A weight among the constants of a converted model: found by its values, or said not to be there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pytest_hfaccel.backends import WeightChange
from pytest_hfaccel.backends.exported import ConstantMerged
from pytest_hfaccel.backends.exported.constants import holds_weight, replacements_for

WEIGHT = torch.tensor([[1.0, 2.0, -4.0], [0.5, 3.0, 8.0]])
CHANGE = WeightChange("w", 1, 10.0)


def found(*constants: Any, weights: dict[str, torch.Tensor] | None = None) -> list[Any]:
    return [new for _, new in replacements_for(CHANGE, weights or {"w": WEIGHT}, constants, np.asarray)]


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        (WEIGHT.numpy(), [[1, 12, -4], [0.5, 3, 8]]),
        (WEIGHT.numpy().T, [[1, 0.5], [12, 3], [-4, 8]]),
        (WEIGHT.numpy().reshape(6), [1, 12, -4, 0.5, 3, 8]),
        (0.5 * WEIGHT.numpy(), [[0.5, 6, -2], [0.25, 1.5, 4]]),  # the converter has merged a factor into it
    ],
)
def test_a_weight_is_found_in_another_form(constant: Any, expected: Any) -> None:
    (new,) = found(np.ones(6, np.float32), constant)
    np.testing.assert_array_equal(new, np.asarray(expected, np.float32))


@pytest.mark.parametrize("constant", [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32), WEIGHT.numpy()[:, :2]])
def test_a_constant_with_other_values_is_not_the_weight(constant: Any) -> None:
    """Zeros are no weight times 0: the means of a fresh batch norm were taken for the scale of one merged elsewhere."""
    assert not holds_weight("w", {"w": WEIGHT}, [constant], np.asarray)
    with pytest.raises(ConstantMerged, match="no constant has the values of w"):
        found(constant)


def test_a_weight_that_another_equals_is_not_chosen() -> None:
    with pytest.raises(ConstantMerged, match="another weight has the same values"):
        found(WEIGHT.numpy(), weights={"w": WEIGHT, "other": WEIGHT.clone()})
