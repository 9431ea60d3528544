"""Other ways of running a model: with equal numbers taken in the other order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_hfaccel.explain.variants import NotPossible, TiesReversed, run_with_ties_reversed

ROW = torch.tensor([[2.0, 0.0, 3.0, 0.0, 0.0]])


def test_the_order_of_equal_numbers_is_the_other_one() -> None:
    with torch.no_grad():
        values, places = ROW.topk(3, dim=-1)
        ordered = ROW.sort(dim=1)
        with TiesReversed() as ties:
            other_values, other_places = ROW.topk(3)
            other = ROW.sort(1)
            best = ROW.topk(k=2, dim=1).indices
    assert ties.calls == 3
    assert torch.equal(values, other_values)
    assert torch.equal(ordered.values, other.values)
    assert torch.equal(ROW.gather(1, other.indices), other.values)
    assert places[0, 2] != other_places[0, 2]
    assert other.indices[0, :3].tolist() != ordered.indices[0, :3].tolist()
    assert best.tolist() == [[2, 0]], "numbers that are not equal keep their places"


def test_what_has_to_take_the_first_still_does() -> None:
    with torch.no_grad(), TiesReversed() as ties:
        assert ROW.argmin(dim=1).tolist() == [1]
        assert ROW.min(dim=1).indices.tolist() == [1]
        assert torch.sort(ROW, stable=True, dim=1).indices.tolist() == [[1, 3, 4, 0, 2]]
    assert ties.calls == 0


class _Source:
    """A checkpoint of a model made up here."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def torch_model(self, dtype: str) -> Any:
        assert dtype == "fp32"
        return self._forward


def test_a_class_that_leaves_ties_open_gives_something_else() -> None:
    def forward(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"place": x.topk(3).indices.float()}

    outputs = run_with_ties_reversed(_Source(forward), {"x": ROW})
    assert not torch.equal(outputs["place"], forward(ROW)["place"])
    with pytest.raises(NotPossible, match="neither sorts nor"):
        run_with_ties_reversed(_Source(lambda x: {"sum": x.sum(1)}), {"x": ROW})
