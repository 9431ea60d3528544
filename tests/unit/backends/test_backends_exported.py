"""What every exported runtime shares: which graph a call gets, which inputs are computed, what pipelines hand over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.core.errors import LoadError
from tests.unit.backends.backend_sources import MadeUpSource, made_up_model, make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow
pytest.importorskip("openvino", reason="openvino is an extra of this package")


def unrolled(self: Any, pixel_values: Any) -> Any:
    """Loop over the batch, as models with several images per sample do."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    rows = [self.linear(row) * (index + 1) for index, row in enumerate(list(pixel_values))]
    return BaseModelOutput(last_hidden_state=torch.stack(rows))


def masked(self: Any, pixel_values: Any, pixel_mask: Any = None) -> Any:
    """Take a mask or leave it."""
    from transformers.modeling_outputs import BaseModelOutput

    hidden = self.linear(pixel_values)
    return BaseModelOutput(last_hidden_state=hidden if pixel_mask is None else hidden * pixel_mask[..., None])


def split_by_size(self: Any, pixel_values: Any, image_grid_thw: Any) -> Any:
    """Loop over the sizes of images, as vision-language models do."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    if int(image_grid_thw[0, 1]) > 100:  # no tracer follows both ways
        raise ValueError("too large")
    sizes = [frames * height * width for frames, height, width in image_grid_thw.tolist()]
    pooled = [self.linear(image).mean(dim=0) for image in pixel_values.split(sizes)]
    return BaseModelOutput(last_hidden_state=torch.stack(pooled))


def load(source: Any) -> Any:
    from pytest_hfaccel.backends.openvino.backend import OpenVINOBackend

    return OpenVINOBackend().load(make_cell(source.spec, "openvino:CPU"), source)


def difference(loaded: Any, model: Any, inputs: dict[str, Any]) -> float:
    return float((loaded.forward(inputs)["last_hidden_state"] - model(**inputs).last_hidden_state).abs().max())


def test_a_model_that_unrolls_over_the_batch_gets_a_graph_per_batch_size(tmp_path: Path) -> None:

    model = made_up_model(unrolled)
    source = MadeUpSource(model, {"pixel_values": torch.randn(2, 3, 4)}, tmp_path)
    loaded = load(source)
    for rows in (2, 1, 2, 3, 1):
        assert difference(loaded, model, {"pixel_values": torch.randn(rows, 3, 4)}) < 1e-5
    assert loaded.placement.details["one_graph_for_any_batch"] is False
    assert loaded.placement.details["graphs"] == 3


def test_a_model_that_loops_over_the_sizes_of_images_gets_a_graph_per_sizes(tmp_path: Path) -> None:

    model = made_up_model(split_by_size)
    forward = model.forward

    def sized(*heights: int) -> dict[str, Any]:
        grid = torch.tensor([[1, height, 2] for height in heights])
        return {"pixel_values": torch.randn(2 * sum(heights), 4), "image_grid_thw": grid}

    loaded = load(MadeUpSource(model, sized(2, 2), tmp_path))
    for heights in ((2, 2), (3, 1), (2, 2), (4,)):
        assert difference(loaded, model, sized(*heights)) < 1e-5
    assert loaded.placement.details["graphs"] == 3
    assert loaded.placement.details["shapes"] == "folded"
    assert model.forward == forward


def test_an_additional_input_gets_a_graph_of_its_own(tmp_path: Path) -> None:

    model = made_up_model(masked)
    loaded = load(MadeUpSource(model, {"pixel_values": torch.randn(2, 3, 4)}, tmp_path))
    mask = torch.tensor([[1, 0, 1]])
    assert difference(loaded, model, {"pixel_values": torch.randn(1, 3, 4), "pixel_mask": mask}) < 1e-5
    assert difference(loaded, model, {"pixel_values": torch.randn(5, 3, 4)}) < 1e-5
    assert loaded.placement.details["graphs"] == 2


def test_a_model_that_cannot_be_converted_names_every_way_that_was_tried(tmp_path: Path) -> None:

    from pytest_hfaccel.core.errors import LoadError

    def hopeless(self: Any, pixel_values: Any) -> Any:
        return self.linear(pixel_values).numpy()

    source = MadeUpSource(made_up_model(hopeless), {"pixel_values": torch.randn(2, 3, 4)}, tmp_path)
    with pytest.raises(LoadError, match=r"MadeUp cannot be converted .*\bvarying\b.*\ball\b.*\bstatic\b.*: ") as caught:
        load(source)
    assert caught.value.stage == "convert"


def test_inputs_that_the_exporter_computes_are_computed_for_every_call(tmp_path: Path) -> None:

    from pytest_hfaccel.backends.exported.inputs import ComputedInputs
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.registry.auto_classes import match_pairs
    from tests.unit.backends.backend_sources import TINY

    store = CheckpointStore(tmp_path)
    text, vision = (
        ComputedInputs(store.prepare(match_pairs(name)[0], TINY))
        for name in ("opt/OPTModel", "qwen3_5_moe_vision/Qwen3_5MoeVisionModel")
    )
    assert text.of({"input_ids": torch.ones(1, 6, dtype=torch.long)}) == {}
    added = vision.of({"hidden_states": torch.ones(8, 4), "grid_thw": torch.tensor([[1, 2, 2], [1, 2, 2]])})
    assert added["cu_seqlens"].tolist() == [0, 4, 8]
    assert added["position_ids"].shape == (8, 2)


def test_a_model_that_cannot_be_made_without_weights_has_no_such_inputs(tmp_path: Path) -> None:

    from pytest_hfaccel.backends.exported.inputs import ComputedInputs

    source: Any = MadeUpSource(made_up_model(masked), {}, tmp_path)  # no config on disk
    assert ComputedInputs(source).of({"input_ids": torch.ones(1, 2)}) == {}


def test_what_calls_must_have_in_common() -> None:

    from pytest_hfaccel.backends.exported.inputs import signature, widened

    def of(fixed_batch: bool = False, exact: bool = False, **inputs: Any) -> str:
        return signature(inputs, exact=exact, fixed_batch=fixed_batch)

    ids = torch.ones(2, 5, dtype=torch.long)
    assert of(input_ids=ids) == of(input_ids=ids[:1, :3])
    assert of(input_ids=ids) != of(input_ids=ids, attention_mask=ids)
    assert of(True, input_ids=ids) != of(True, input_ids=ids[:1])
    assert of(True, input_ids=ids) == of(True, input_ids=ids[:, :3])
    assert of(exact=True, input_ids=ids) != of(exact=True, input_ids=ids[:, :3])
    assert of(pixel_values=ids[None]) != of(pixel_values=ids[None, :, :3])
    assert of(image_sizes=ids) != of(image_sizes=ids + 1)
    wide = widened({"input_ids": ids[:1, :1], "pixel_values": torch.ones(1, 3)}, fixed_batch=False)
    assert {name: tuple(tensor.shape) for name, tensor in wide.items()} == {"input_ids": (2, 2), "pixel_values": (2, 3)}


def test_inputs_that_the_exporter_cannot_compute_are_a_failed_conversion() -> None:

    from pytest_hfaccel.backends.exported.inputs import computed_inputs

    model = made_up_model(masked)

    def get_rope_index(pixel_values: Any) -> Any:
        return pixel_values["grid"]

    model.get_rope_index = get_rope_index
    with pytest.raises(LoadError, match=r"some of its inputs: IndexError") as caught:
        computed_inputs(model, {"pixel_values": torch.zeros(2, 4)})
    assert caught.value.stage == "convert"


def names_handed_over(source: Any, **call: torch.Tensor) -> set[str]:
    from pytest_hfaccel.backends.exported.architecture import architecture_without_weights

    handed: list[Mapping[str, torch.Tensor]] = []
    model = architecture_without_weights(source, handed.append, frozenset({"input_ids", "attention_mask"}))
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
