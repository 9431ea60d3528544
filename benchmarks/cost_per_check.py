"""What a passed check costs here, and what a passed test costs in transformers' own suite for the same class.

    pip install parameterized  # theirs needs it
    python benchmarks/cost_per_check.py [--rounds 3] [--sdist transformers-5.23.0.tar.gz] [PAIR ...]

Both sides test the same tiny checkpoint with one thread, in alternating runs of pytest. Transformers' side is its
`ModelTesterMixin`: the tests that every model's own file inherits, taken from the source distribution of the installed
version. That archive holds neither the models' files nor the mixins for generation and export, so those tests are not
part of the comparison. Seconds are those of the tests themselves, without imports and collection. Transformers'
subtests are counted beside its tests: a subtest is one comparison of many in a loop.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

PAIRS = {
    "bert/BertForMaskedLM": "bert/BertModel",
    "gpt2/GPT2LMHeadModel": "gpt2/GPT2Model",
    "t5/T5ForConditionalGeneration": "t5/T5Model",
    "vit/ViTForImageClassification": "vit/ViTModel",
    "whisper/WhisperForConditionalGeneration": "whisper/WhisperModel",
}
"""The classes, each with a sibling whose run imports the same file of transformers."""

WARM_UP = ("opt/OPTForCausalLM", "albert/AlbertForMaskedLM")
"""Classes whose run imports what the checks need: generation, pipelines, tokenizers."""

HERE = Path(__file__).resolve().parents[1]

# What the common tests import and the archive lacks.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
}

SUITE = """
import copy
import unittest
from pathlib import Path

import torch

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.registry.auto_classes import match_pairs
from pytest_hfaccel.core.spec import Weights, WeightsChoice
from tests.test_modeling_common import ModelTesterMixin

torch.set_num_threads(1)
SPEC = match_pairs({pair!r})[0]
CHECKPOINT = CheckpointStore(RunConfig.from_values({{}}).cache_dir).prepare(SPEC, WeightsChoice(Weights.TINY, ""))
MODEL = CHECKPOINT.torch_model("fp32")


class Tester:
    is_training = True
    batch_size = CHECKPOINT.sample().batch

    def __getattr__(self, name):
        config = MODEL.config
        if name in ("seq_length", "encoder_seq_length"):
            lengths = {{n: t.shape[1] for n, t in CHECKPOINT.sample().forward.items() if t.dim() > 1}}
            return lengths.get("input_ids") or lengths["input_features"]
        return getattr(config, name)

    def prepare_config_and_inputs_for_common(self):
        return copy.deepcopy(MODEL.config), copy.deepcopy(CHECKPOINT.sample().forward)


class CommonTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (type(MODEL),)
    is_encoder_decoder = bool(getattr(MODEL.config, "is_encoder_decoder", False))
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Tester()
"""


@dataclass(frozen=True)
class Cost:
    """What a run of pytest took.

    Attributes:
        tests: Seconds of the tests that passed: setup, call and teardown.
        passed: Tests that passed.
        others: Tests that did not: skipped, or failed.
        subtests: Subtests that passed.
    """

    tests: float
    passed: int
    others: int
    subtests: int = 0

    @property
    def per_test(self) -> float:
        """Seconds per test that passed."""
        return self.tests / self.passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), help="model type and class (default: five classes)")
    parser.add_argument("--rounds", type=int, default=3, help="runs per side and class (default: %(default)s)")
    parser.add_argument("--sdist", type=Path, help="source distribution (default: fetched with pip)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        suite = unpacked(given.sdist or fetched(Path(name)), Path(name))
        print(
            "| class | ours: passed | s per check | theirs: passed | s per test | ratio | subtests | ratio with them |"
        )
        print("|---|---|---|---|---|---|---|---|")
        ratios = [compare(pair, suite, given.rounds) for pair in given.pairs]
    print(f"\nours / theirs, per passed check and test: median {median(ratios):.2f}, largest {max(ratios):.2f}")


def compare(pair: str, suite: Path, rounds: int) -> float:
    """Measure one class on both sides in turn, print a line, and return the ratio of the costs per check."""
    (suite / "tests" / "test_common_here.py").write_text(SUITE.format(pair=pair), encoding="utf-8")
    run_ours(pair)  # builds the checkpoint
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(run_ours(pair))
        theirs.append(run_theirs(suite))
    here, there = (median(cost.per_test for cost in costs) for costs in (ours, theirs))
    # By round, because the machine is faster in one than in another.
    ratios = [a.per_test / b.per_test for a, b in zip(ours, theirs, strict=True)]
    finest = median(ratio * (1 + b.subtests / b.passed) for ratio, b in zip(ratios, theirs, strict=True))
    last = theirs[-1]
    cells = (
        pair,
        f"{ours[-1].passed} of {ours[-1].passed + ours[-1].others}",
        f"{here:.3f}",
        f"{last.passed} of {last.passed + last.others}",
        f"{there:.3f}",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        str(last.subtests),
        f"{finest:.1f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    return median(ratios)


def run_ours(pair: str) -> Cost:
    """Run the battery of one class, after others that have everything imported: theirs imports when it collects."""
    before = [*WARM_UP, *([PAIRS[pair]] if pair in PAIRS else [])]
    models = [part for name in (*before, pair) for part in ("--hf-model", name)]
    return run(["model_classes/test_hf_auto.py", *models, "--hf-device", "cpu"], HERE, only=pair.replace("/", "--"))


def run_theirs(suite: Path) -> Cost:
    """Run transformers' common tests on the same checkpoint."""
    return run(["tests/test_common_here.py", "-p", "no:hfaccel", "-o", "addopts="], suite)


def run(arguments: list[str], directory: Path, only: str = "") -> Cost:
    """Run pytest in a process with one thread, and read its report: of the tests with `only` in their names."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HFACCEL_REPORTS": name}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):  # 1: some tests failed
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        every = ElementTree.parse(report).iter("testcase")  # noqa: S314 - pytest wrote it
        cases = [case for case in every if only in case.get("name", "")]
    passed = [case for case in cases if all(child.tag in ("properties", "system-out", "system-err") for child in case)]
    subtests = re.search(r"(\d+) subtests passed", done.stdout)
    return Cost(
        tests=sum(float(case.get("time", 0)) for case in passed),
        passed=len(passed),
        others=len(cases) - len(passed),
        subtests=int(subtests[1]) if subtests else 0,
    )


def fetched(directory: Path) -> Path:
    """Download the source distribution of the installed transformers."""
    from importlib.metadata import version

    wanted = f"transformers=={version('transformers')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers", wanted]
    subprocess.run([*command, "--dest", str(directory)], check=True)
    return next(directory.glob("transformers-*.tar.gz"))


def unpacked(archive: Path, directory: Path) -> Path:
    """Unpack the tests of a source distribution, with stubs for what it lacks; return their parent."""
    with tarfile.open(archive) as files:
        files.extractall(directory, filter="data")
    (suite,) = (path.parent for path in directory.glob("*/tests"))
    for name, text in STUBS.items():
        path = suite / "tests" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    (suite / "tests" / "__init__.py").touch()
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return suite


if __name__ == "__main__":
    main()
