"""Every mistake of a registry file is told, with file, line, path, what is allowed and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.registry import load_registry


def mistakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **files: str) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError) as caught:
        load_registry([Path(f"{name}.yaml") for name in files])
    return caught.value.problems


def test_a_dtype_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "version: 1\nmodels:\n  gpt2:\n    dtypes: [fp32, fp61]\n"
    assert mistakes(monkeypatch, tmp_path, registry=text) == [
        "registry.yaml:4: models.gpt2.dtypes[1]: 'fp61' is not a dtype. Did you mean 'fp16'?\n"
        "Allowed: fp32, bf16, fp16, int8."
    ]


HASH = "a" * 64
ENTRY = "version: 1\nmodels:\n  m:\n    architecture: BertModel\n    "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ENTRY + "dimz: {}\n",
            "r.yaml:5: models.m.dimz: 'dimz' is not a key here. Did you mean 'dims'?\nAllowed: task,",
        ),
        (ENTRY + "task: fil-mask\n", "r.yaml:5: models.m.task: 'fil-mask' is not a task. Did you mean 'fill-mask'?"),
        (ENTRY + "parameters: many\n", "r.yaml:5: models.m.parameters: 'many' is not a whole number."),
        (ENTRY + "parameters: 0\n", "r.yaml:5: models.m.parameters: Input should be greater than 0: 0."),
        (ENTRY + "gated: 1\n", "r.yaml:5: models.m.gated: 1 is not true or false."),
        (ENTRY + "dims: [1]\n", "r.yaml:5: models.m.dims: [1] is not a mapping."),
        (ENTRY + "dtypes: fp32\n", "r.yaml:5: models.m.dtypes: 'fp32' is not a list."),
        (ENTRY + "hub_id: a/b/c\n", "r.yaml:5: models.m.hub_id: 'a/b/c' is not a hub id such as"),
        (
            ENTRY + "bundled: pkg/../x\n",
            "r.yaml:5: models.m.bundled: 'pkg/../x' is not an installed package and a folder",
        ),
        (
            ENTRY + f"package: {{folder: pkg/../x, install: [p==1], sha256: {{a: {HASH}}}}}\n",
            "r.yaml:5: models.m.package.folder: 'pkg/../x' is not an installed package and a folder",
        ),
        (
            ENTRY + f"package: {{folder: pkg, install: [p], sha256: {{a: {HASH}}}}}\n",
            "r.yaml:5: models.m.package.install[0]: 'p' is not a package with its version, such as 'rxnmapper==0.4.3'.",
        ),
        (
            ENTRY + f"package: {{folder: pkg, install: [p==1], sha256: {{../a: {HASH}}}}}\n",
            "r.yaml:5: models.m.package.sha256.../a: '../a' is not the name of a file below the folder.",
        ),
        (
            ENTRY + "package: {folder: pkg, install: [p==1], sha256: {a: abc}}\n",
            "r.yaml:5: models.m.package.sha256.a: 'abc' is not a SHA-256 hash: 64 hexadecimal digits.",
        ),
        (
            ENTRY + f"package: {{folder: pkg, install: [p==1], converter: gguff, sha256: {{a: {HASH}}}}}\n",
            "r.yaml:5: models.m.package.converter: 'gguff' is not a converter. Did you mean 'gguf'?\n"
            "Allowed: smiles, ctranslate2-whisper, gguf, zip.",
        ),
        (ENTRY + "package: {folder: pkg, install: [p==1]}\n", "r.yaml:5: models.m.package.sha256: is missing."),
        (ENTRY + "trained: digit\n", "r.yaml:5: models.m.trained: 'digit' is not a data set to train on. Did you mean"),
        (
            ENTRY + "trained: digits\n    path: .\n",
            "r.yaml:3: models.m: 'path' and 'trained' exclude each other.",
        ),
        (ENTRY + "revision: ' x'\n", "r.yaml:5: models.m.revision: ' x' is not a branch, tag or commit."),
        (ENTRY + "dependencies: ['a b']\n", "r.yaml:5: models.m.dependencies[0]: 'a b' is not a requirement such as"),
        (
            ENTRY + "min_transformers: {version: 5.16, reason: r}\n",
            "r.yaml:5: models.m.min_transformers.version: 5.16 is not text; put it in quotes.",
        ),
        (
            ENTRY + "max_transformers: {version: five, reason: r}\n",
            "r.yaml:5: models.m.max_transformers.version: 'five' is not a version such as",
        ),
        (ENTRY + "min_transformers: {version: '5'}\n", "r.yaml:5: models.m.min_transformers.reason: is missing."),
        (
            ENTRY + "expect: [{stage: rnu, reason: r}]\n",
            "r.yaml:5: models.m.expect[0].stage: 'rnu' is not a stage. Did you mean 'run'?\n"
            "Allowed: resolve, load, convert, compile, run, compare.",
        ),
        (
            ENTRY + "expect: [{stage: run, device: 'opnvino:*', reason: r}]\n",
            "r.yaml:5: models.m.expect[0].device: 'opnvino:*' is not a device. Did you mean 'openvino'?",
        ),
        (
            ENTRY + "expect: [{stage: run, dtype: 'x*', reason: r}]\n",
            "r.yaml:5: models.m.expect[0].dtype: 'x*' is not a dtype.\nAllowed:",
        ),
        (
            ENTRY + "expect: [{stage: run, weights: small, reason: r}]\n",
            "r.yaml:5: models.m.expect[0].weights: 'small' is not a kind of weights.\n"
            "Allowed: pretrained, random, tiny.",
        ),
        (ENTRY + "expect: [{stage: run, reason: ' '}]\n", "r.yaml:5: models.m.expect[0].reason: ' ' is not a reason"),
        (ENTRY + "expect: [{stage: run}]\n", "r.yaml:5: models.m.expect[0].reason: is missing."),
        ("version: 2\n", "r.yaml:1: version: 2 is not a version of this format.\nAllowed: 1."),
        ("models: {}\n", "r.yaml:1: version: is missing."),
        ("- 1\n", "r.yaml:1: [1] is not a mapping."),
        (
            "version: 1\nmodel: {}\n",
            "r.yaml:2: model: 'model' is not a key here. Did you mean 'models'?\nAllowed: version",
        ),
        ("version: 1\nmodels:\n  'a b': {}\n", "r.yaml:3: models.a b: 'a b' is not a hub id such as"),
        ("version: 1\nclasses:\n  os.system: {}\n", "r.yaml:3: classes.os.system: 'os.system' is not a class name"),
        (
            "version: 1\nclasses:\n  BertModel: {taks: x}\n",
            "r.yaml:3: classes.BertModel.taks: 'taks' is not a key here.",
        ),
        (
            "version: 1\nmodels:\n  gtp2: null\n",
            "r.yaml:3: models.gtp2: there is no such model to remove. Did you mean 'gpt2'?",
        ),
        ("version: 1\nmodels:\n  m: {dims: {}}\n", "r.yaml:3: models.m: 'architecture' is missing"),
        (
            "version: 1\nmodels:\n  m: {architecture: SamModell}\n",
            "r.yaml:3: models.m: 'task' is missing, and it is not known for 'SamModell'. Did you mean 'SamModel'?",
        ),
        (ENTRY + "hub_id: a/b\n    path: c\n", "r.yaml:3: models.m: 'hub_id' and 'path' exclude each other."),
        (
            "version: 1\nmodels:\n  openai--whisper-tiny: {architecture: BertModel}\n",
            "r.yaml:3: models.openai--whisper-tiny: its tests would be called 'openai--whisper-tiny', like those of "
            "'openai/whisper-tiny'",
        ),
    ],
)
def test_each_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(monkeypatch, tmp_path, r=text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_mistakes_of_all_files_at_once_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = "version: 1\nmodels:\n  a: {task: x}\n  b: {}\n  c: {architecture: BertModel}\n  c: {}\n"
    second = "version: 1\nclasses:\n  BertModel: {x: 1}\nmodels: {d: {dims: 1}}\n"
    found = mistakes(monkeypatch, tmp_path, first=first, second=second, third="a: ]\n")
    assert [line.split(": ")[:2] for line in found] == [
        ["first.yaml:3", "models.a.task"],
        ["first.yaml:4", "models.b"],
        ["first.yaml:6", "models.c"],
        ["second.yaml:3", "classes.BertModel.x"],
        ["second.yaml:4", "models.d.dims"],
        ["third.yaml:1", "not YAML"],
    ]


def test_the_message_holds_every_problem() -> None:
    error = RegistryError(["a", "b"], hint="c")
    assert str(error) == "a\nb\nc"


def test_devices_of_third_party_backends_can_be_expected(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(ENTRY + "expect: [{stage: run, device: 'tpu:0', reason: r}]\n", encoding="utf-8")
    with pytest.raises(RegistryError, match="'tpu:0' is not a device"):
        load_registry([file])
    assert load_registry([file], extra_kinds=["tpu"]).get("m").expect[0].device == "tpu:0"
