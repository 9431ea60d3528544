"""What the architecture class without weights hands to the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.backend_sources import tiny_checkpoint

pytestmark = pytest.mark.slow


def names_handed_over(source: Any, **call: torch.Tensor) -> set[str]:
    from pytest_hfaccel.backends.openvino.architecture import architecture_on_openvino

    handed: list[Mapping[str, torch.Tensor]] = []
    model = architecture_on_openvino(source, handed.append, frozenset({"input_ids", "attention_mask"}))
    model(**call)
    return set(handed[0])


@pytest.mark.parametrize(
    ("architecture", "offset", "handed"),
    [
        ("GPT2LMHeadModel", 0, set()),
        ("GPT2LMHeadModel", 1, {"position_ids"}),
        # Left alone, it counts from the id of padding on: positions from 0 on are not what the graph computes.
        ("RobertaForCausalLM", 0, {"position_ids"}),
    ],
)
def test_positions_that_the_graph_would_not_compute_are_handed_over(
    architecture: str, offset: int, handed: set[str], tmp_path: Path
) -> None:
    source = tiny_checkpoint(tmp_path, architecture, "text-generation")
    ids = torch.tensor([[5, 6, 7]])
    names = names_handed_over(source, input_ids=ids, position_ids=torch.tensor([[0, 1, 2]]) + offset)
    assert names == {"input_ids", "attention_mask"} | handed
