"""A checkpoint brings Python code. It runs with two consents of the user, never with one of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.registry import load_registry, resolve_model
from tests.harness import HfRun, Project, environment
from tests.integration.hub_server import Hub, serving

CODE = """
import os
from transformers import BertForMaskedLM

open(os.environ["CODE_RAN"], "w").close()


class BertOwnForMaskedLM(BertForMaskedLM):
    pass
"""


def add_code(directory: Path, reference: str = "modeling_own.BertOwnForMaskedLM") -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertOwnForMaskedLM"], "auto_map": {"AutoModelForMaskedLM": reference}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "modeling_own.py").write_text(CODE, encoding="utf-8")


@pytest.fixture(scope="module")
def built(shared_cache: Path) -> Path:
    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    return CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test")).directory


@pytest.fixture
def checkpoint(project: Project, built: Path) -> Path:
    """A tiny BERT whose class lies beside its weights."""
    directory = project.directory / "own-bert"
    shutil.copytree(built, directory)
    add_code(directory)
    return directory


def run(project: Project, *arguments: str) -> tuple[HfRun, bool]:
    """Run a check that loads the model; return the run, and whether the checkpoint's code ran."""
    mark = project.directory / "code-ran"
    mark.unlink(missing_ok=True)
    done = project.run("--hf-device", "cpu", "-k", "from_pretrained", *arguments, CODE_RAN=str(mark))
    return done, mark.exists()


@pytest.mark.slow
def test_a_flag_without_a_registry_entry_runs_nothing(project: Project, checkpoint: Path) -> None:
    found, ran = run(project, "--hf-model", "./own-bert", "--hf-trust-remote-code")
    assert not ran
    assert found.code == 1, found.output
    assert f"modeling_own.py  sha256 {hashlib.sha256(CODE.encode()).hexdigest()}" in found.output
    assert "this one has no such entry" in found.output
    assert f"--hf-trust-remote-code={checkpoint} then runs them" in found.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["./own-bert", "mine"])
def test_its_exact_path_or_an_entry_and_the_flag_run_it(project: Project, checkpoint: Path, name: str) -> None:
    entry = "path: own-bert, architecture: BertOwnForMaskedLM, task: fill-mask, requires_remote_code: true"
    project.write("mine.yaml", f"version: 1\nmodels:\n  mine: {{{entry}}}\n")
    # The file to test comes last: a flag whose value is optional must not take it for its value.
    consent = "--hf-trust-remote-code=own-bert" if name == "./own-bert" else "--hf-trust-remote-code"
    found, ran = run(project, "--hf-registry", "mine.yaml", "--hf-model", name, consent, "test_hf_bert.py")
    assert found.code == 0, found.output
    assert found.counts["passed"] == 1
    assert ran
    assert checkpoint.is_dir()


def refusal(directory: Path, *trusted: str, registry: Path | None = None, name: str = "") -> str:
    known = load_registry([registry] if registry else [])
    (spec,) = resolve_model(name or str(directory), known)
    store = CheckpointStore(directory / "cache", trust_remote_code=trusted)
    with pytest.raises(ConfigError) as caught:
        store.prepare(spec, store.choose(spec, "auto", named=True))
    return str(caught.value)


def test_consent_to_another_model_is_none(tmp_path: Path, checkpoint: Path) -> None:
    assert "then runs them" in refusal(checkpoint, str(tmp_path), "own-ber", "*", checkpoint.name + "*")
    registry = tmp_path / "r.yaml"
    registry.write_text(f"version: 1\nmodels:\n  mine: {{path: {checkpoint}, architecture: OwnForMaskedLM,"
                        " requires_remote_code: true}\n", encoding="utf-8")  # fmt: skip
    assert refusal(checkpoint, registry=registry, name="mine").endswith(
        "Read these files; --hf-trust-remote-code then runs them."
    )
    # The entry is about "mine": the directory, named by itself, is not registered.
    assert "this one has no such entry" in refusal(checkpoint, "registered", registry=registry)


def test_a_file_name_cannot_hide_a_line_of_the_listing(checkpoint: Path) -> None:
    (checkpoint / "a\x1b[2K\x1b[1A.py").write_text("", encoding="utf-8")
    text = refusal(checkpoint)
    assert r"'a\x1b[2K\x1b[1A.py'  sha256 e3b0c442" in text
    assert "\x1b" not in text


def test_code_of_another_repository_needs_a_consent_of_its_own(checkpoint: Path) -> None:
    add_code(checkpoint, "someone/else--modeling_own.BertOwnForMaskedLM")
    text = refusal(checkpoint, str(checkpoint))
    assert "config.json: auto_map names 'someone/else--modeling_own.BertOwnForMaskedLM'" in text
    assert "--hf-trust-remote-code=someone/else then runs it" in text


@pytest.mark.parametrize(
    ("text", "trusted"),
    [("1", ("registered",)), ("no", ()), ("a/b,./c", ("a/b", "./c")), ("registered,a/b", ("registered", "a/b"))],
)
def test_the_environment_variable(text: str, trusted: tuple[str, ...]) -> None:
    assert RunConfig.from_values({}, {"HFACCEL_TRUST_REMOTE_CODE": text}).trust_remote_code == trusted


PREPARE_FROM_HUB = """
import sys
from pathlib import Path
from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.registry import load_registry, resolve_model

(spec,) = resolve_model("someone/tiny-bert", load_registry())
store = CheckpointStore(Path("built"), trust_remote_code=["registered", "someone/tiny-bert-2"])
try:
    store.prepare(spec, store.choose(spec, "auto", named=True))
except ConfigError as error:
    print(error)
"""


def test_code_on_the_hub_is_shown_before_any_weights_are_fetched(tmp_path: Path) -> None:
    config = {"architectures": ["BertOwnForMaskedLM"], "auto_map": {"AutoModelForMaskedLM": "m.BertOwnForMaskedLM"}}
    files = {"config.json": json.dumps(config).encode(), "modeling_own.py": CODE.encode(), "model.safetensors": b"w"}
    with serving(Hub(files)) as hub:
        settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", PREPARE_FROM_HUB],
            env=environment(tmp_path, HF_HOME=str(tmp_path / "hf"), CODE_RAN=str(tmp_path / "code-ran"), **settings),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"modeling_own.py  sha256 {hashlib.sha256(CODE.encode()).hexdigest()}" in done.stdout
    assert "--hf-trust-remote-code=someone/tiny-bert then runs them" in done.stdout
    assert set(hub.fetched) == {"config.json", "modeling_own.py"}
    assert not (tmp_path / "code-ran").exists()
