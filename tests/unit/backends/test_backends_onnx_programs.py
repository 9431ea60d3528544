"""ONNX graphs as files and constants, without a runtime: what ONNX Runtime and the browsers share."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from tests.unit.backends.backend_sources import CountingSource, tiny_checkpoint

pytestmark = pytest.mark.slow
pytest.importorskip("onnxscript", reason="onnx is an extra of this package")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("gpt2")
    return CountingSource(tiny_checkpoint(folder, "GPT2LMHeadModel", "text-generation"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversions")


def converted(source: Any, folder: Path, *, static: bool = False, decoder: bool = False) -> Any:
    """Convert a checkpoint, unless that has been done, and read it."""
    from pytest_hfaccel.backends.exported.capture import export_decoder, export_model
    from pytest_hfaccel.backends.exported.conversions import Conversions
    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms

    runtime: Any = OnnxPrograms()
    store = Conversions(runtime, folder)
    inputs = source.sample().forward
    key = f"{static}-{decoder}"
    if not store.has(key):
        if decoder:
            prompts = {name: tensor[:, :2] for name, tensor in inputs.items()}
            store.make(key, lambda: export_decoder(runtime, source.torch_model("fp32"), prompts))
        else:
            store.make(key, lambda: export_model(runtime, source.torch_model("fp32"), inputs, static=static))
    return store.read(key).program


def test_shapes_are_open_or_not(source: Any, folder: Path) -> None:
    from pytest_hfaccel.backends.exported.onnx_programs import input_names

    def open_axes(program: Any) -> list[list[int]]:
        return [
            [axis for axis, size in enumerate(each.shape) if not isinstance(size, int)] for each in program.graph.inputs
        ]

    open_program, static = converted(source, folder), converted(source, folder, static=True)
    assert input_names(open_program) == input_names(static) == ["input_ids", "attention_mask"]
    assert [each.name for each in open_program.graph.outputs] == ["logits"]
    assert open_axes(open_program) == [[0, 1], [0, 1]]
    assert open_axes(static) == [[], []]


def test_an_edited_graph_differs_in_one_weight(source: Any, folder: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms, constant_sizes, file_of, serialized

    runtime, program = OnnxPrograms(), converted(source, folder)
    weights = dict(source.torch_model("fp32").named_parameters())
    name = "transformer.h.0.attn.c_attn.weight"
    assert runtime.holds_weight(program, weights, name)
    edited = runtime.edit_constant(program, weights, WeightChange(name, 5, 1.0))
    assert file_of(edited) is None
    assert file_of(program) is not None
    before, after = (
        {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(serialized(which)).graph.initializer}
        for which in (program, edited)
    )
    assert set(before) == set(after) == set(constant_sizes(program))
    changed = {key: abs(after[key] - before[key]).sum() for key in before if (after[key] != before[key]).any()}
    assert list(changed.values()) == [pytest.approx(1.0)]


def test_a_graph_with_a_cache_says_how_it_begins(source: Any, folder: Path) -> None:
    from pytest_hfaccel.backends.exported.onnx_programs import state_of

    state = state_of(converted(source, folder, decoder=True))
    assert [each.initial(3).shape for each in state] == [torch.Size([3, 4, 0, 16])] * 4
    assert {each.input.removeprefix("input.") for each in state} == {
        each.output.removeprefix("output.") for each in state
    }
    assert state_of(converted(source, folder)) == []


def test_no_path_of_the_machine_is_written(source: Any, folder: Path) -> None:
    converted(source, folder)
    for file in (folder / "onnx" / "False-False").iterdir():
        content = file.read_bytes()
        assert torch.__file__.rpartition("/")[0].encode() not in content, file.name


def test_a_damaged_graph_is_an_error_that_names_the_folder(source: Any, folder: Path, tmp_path: Path) -> None:
    from pytest_hfaccel.backends.exported.conversions import Conversions
    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms

    converted(source, folder, static=True)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    saved = tmp_path / "onnx" / "True-False"
    (entry,) = json.loads((saved / "export.json").read_text())["components"].values()
    (saved / entry["file"]).write_bytes(b"\xff" * 100)
    runtime: Any = OnnxPrograms()
    with pytest.raises(LoadError, match="True-False cannot be read"):
        Conversions(runtime, tmp_path).read("True-False")


def test_without_onnx_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_hfaccel.backends.exported import onnx_programs

    monkeypatch.setattr(onnx_programs, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(BackendUnavailable, match="onnxscript is not installed") as caught:
        onnx_programs.require_packages("wasm")
    assert caught.value.hint == "pip install 'pytest-hfaccel[onnx]' installs it."


def test_a_conversion_does_not_survive_a_change_of_how_models_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_hfaccel.backends.exported import conversions, onnx_programs

    class Shared(onnx_programs.OnnxPrograms):
        pass

    def key(kind: type[Any] = onnx_programs.OnnxPrograms) -> str:
        conversions._code_of.cache_clear()
        return conversions.Conversions(kind(), tmp_path).key("checkpoint", "inputs")

    before = key()
    assert key() == before
    assert key(Shared) == before, "a browser takes what ONNX Runtime has converted"
    real = inspect.getsource
    for changed in ("OnnxConfig(**options)", "def export_model", "FOLDED = ", "def decoding_step", "_STATE ="):
        with monkeypatch.context() as patch:

            def edited(what: Any, changed: str = changed) -> str:
                return real(what).replace(changed, f"{changed}  # edited")

            patch.setattr(inspect, "getsource", edited)
            if changed == "_STATE =":  # a constant that `convert` uses
                patch.setattr(onnx_programs, "_STATE", "another")
            assert key() != before, changed
    assert key() == before
