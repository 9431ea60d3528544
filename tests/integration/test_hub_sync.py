"""`hfaccel registry sync`, and downloads that go wrong, against a hub on this machine, through the hub's own client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.errors import CheckpointError, HubError
from pytest_hfaccel.registry import load_registry
from tests.harness import environment
from tests.integration.hub_server import ModelHub, Repository, files_of, serving_models
from tests.integration.test_download import User, error_of

pytestmark = pytest.mark.slow

BERT = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}


def config(**values: object) -> dict[str, bytes]:
    return {"config.json": json.dumps({**BERT, **values}).encode()}


def repositories() -> dict[str, Repository]:
    return {
        "org/small": Repository(config(hidden_size=96, vocab_size=99), parameters=1000),
        "org/other-class": Repository(config(architectures=["BertModel"])),
        "google-bert/bert-base-uncased": Repository(config()),
        "org/gated": Repository(config(), gated=403),
        "org/own-code": Repository(config(auto_map={"AutoModel": "x.X"}, hidden_size=48), tags=("custom_code",)),
        "org/sixth": Repository(config(hidden_size=24)),
    }


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with serving_models(ModelHub(repositories())) as served:
        yield served


PROGRAM = """
import contextlib, io, json, os, sys
from pytest_hfaccel.cli import main
results = []
for folder, arguments in json.loads(sys.argv[1]):
    os.chdir(folder)
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(["registry", "sync", *arguments])
    results.append([code, out.getvalue(), errors.getvalue()])
print(json.dumps(results))
"""


class Sync:
    """`hfaccel registry sync` in a folder, with caches of its own."""

    def __init__(self, directory: Path, hub: ModelHub) -> None:
        self.directory, self.hub = directory, hub
        self.file = directory / "registry.yaml"

    def run(
        self, *commands: Sequence[str], then: Mapping[str, Sequence[str]] | None = None
    ) -> list[tuple[int, str, str]]:
        """Run commands one after the other; return exit code, output and errors of each.

        In a process of its own, because the hub's client reads its settings when it is imported.

        Args:
            *commands: What stands behind `hfaccel registry sync`.
            then: Commands that follow, each in a folder below this one.
        """
        asked = [(str(self.directory), command) for command in commands]
        asked += [(str(self.directory / folder), command) for folder, command in (then or {}).items()]
        settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.hub.url, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(asked)],
            cwd=self.directory,
            env={**environment(self.directory / "cache", HF_HOME=str(self.directory / "hf")), **settings},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [(code, out, errors + done.stderr) for code, out, errors in json.loads(done.stdout.splitlines()[-1])]

    @property
    def entries(self) -> dict[str, dict[str, object]]:
        """The models of the file."""
        found: dict[str, dict[str, object]] = yaml.safe_load(self.file.read_text(encoding="utf-8"))["models"]
        return found


@pytest.fixture
def sync(tmp_path: Path, hub: ModelHub) -> Sync:
    return Sync(tmp_path, hub)


BERTS = ("--class", "BertForMaskedLM", "--top", "4")


BEFORE = (
    "# ours\nversion: 1\nmodels:\n  org/small:  # the small one\n    architecture: BertForMaskedLM\n"
    "    dims: {hidden_size: 64}\n\n# end\n"
)


def test_a_diff_to_review_then_a_file_and_what_is_there_stays(sync: Sync, hub: ModelHub) -> None:
    hub.busy = 1
    there = Sync(sync.directory / "there", hub)
    there.directory.mkdir()
    there.file.write_text(BEFORE, encoding="utf-8")
    adding = {"there": ("--class", "BertForMaskedLM", "--top", "2", "--apply")}
    first, second, third, fourth = sync.run(BERTS, (*BERTS, "--apply"), BERTS, then=adding)
    diff = first[1]
    assert diff.startswith("--- /dev/null\n+++ registry.yaml\n")
    assert "4 models to add to registry.yaml, 0 are registered" in first[2]
    assert hub.busy == 0, "a hub that is busy is waited for"
    listings = [path for path in hub.requests if path.startswith("/api/models?")]
    assert len(listings) == 1 + 3, "pages are asked for until four models of the class are found, and within a day once"
    assert not any("org/sixth" in path for path in hub.requests), "what is not wanted is not asked for"

    assert second[:2] == (0, diff)
    assert "".join(f"+{line}" for line in sync.file.read_text(encoding="utf-8").splitlines(keepends=True)) in diff
    assert sync.entries == {
        "org/small": {
            "architecture": "BertForMaskedLM",
            "task": "fill-mask",
            "dims": {"hidden_size": 96, "vocab_size": 99},
            "parameters": 1000,
        },
        "google-bert/bert-base-uncased": {"architecture": "BertForMaskedLM", "task": "fill-mask"},
        "org/gated": {"architecture": "BertForMaskedLM", "task": "fill-mask", "gated": True},
        "org/own-code": {"architecture": "BertForMaskedLM", "task": "fill-mask", "dims": {"hidden_size": 48}},
    }
    text = sync.file.read_text(encoding="utf-8")
    assert re.search(r"  # Its config.json wants an accepted licence.*\n  org/gated:", text)
    assert re.search(r"  # Its repository has code of its own.*\n  # .*\n  org/own-code:", text)
    registry = load_registry([sync.file])
    assert registry.get("org/small").dims == {"hidden_size": 96, "vocab_size": 99}
    assert not registry.get("org/own-code").remote_code_registered, "no consent by itself"

    assert third[1] == "", "what is registered is not proposed again"
    assert "0 models to add to registry.yaml, 4 are registered" in third[2]

    code, diff, errors = fourth
    assert code == 0
    assert diff.startswith("--- registry.yaml\n+++ registry.yaml\n@@")
    assert not [line for line in diff.splitlines()[2:] if line.startswith("-")], "only additions"
    assert 'registry.yaml:4: org/small: the hub says parameters: 1000, dims: {"hidden_size": 96' in errors
    text = there.file.read_text(encoding="utf-8")
    assert text.startswith(BEFORE.removesuffix("\n# end\n"))
    assert text.endswith("\n# end\n")
    assert list(there.entries) == ["org/small", "google-bert/bert-base-uncased"]


@pytest.mark.nightly
def test_a_hub_that_stays_busy_ends_the_sync_which_goes_on_later(sync: Sync, hub: ModelHub) -> None:
    sync.run(("--class", "BertForMaskedLM", "--top", "1", "--apply"))
    hub.busy = 10**6
    ((code, _, errors),) = sync.run(BERTS)
    assert code == 1
    assert "answered with an error (HTTP 429)" in errors
    assert "The same command goes on there" in errors
    hub.busy = 0
    sync.run((*BERTS, "--apply"))
    assert len(sync.entries) == 4


@pytest.mark.nightly
def test_all_classes(sync: Sync, hub: ModelHub) -> None:
    """A listing per model type, and as many requests as that takes, for a thousand classes."""
    hub.repositories = {**repositories(), "org/gpt": Repository(config(architectures=["GPT2Model"], model_type="gpt2"))}
    ((code, diff, _),) = sync.run(("--all-classes", "--top", "1"))
    assert code == 0
    assert [line for line in diff.splitlines() if line.startswith("+  org/")] == [
        "+  org/small:",
        "+  org/other-class:",
        "+  org/gpt:",
    ]
    listings = [path for path in hub.requests if path.startswith("/api/models?") and "cursor" not in path]
    assert len(listings) == len(set(listings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--class", "BertForMaskdLM"), "Did you mean 'BertForMaskedLM'?"),
        (("--class", "BertForMaskedLM", "--top", "0"), "--top: 0 is not allowed"),
        (("--apply",), "--apply: say with --class or --all-classes"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["registry", "sync", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint that was made on disk."""
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

    spec = ModelSpec("bert", "BertForMaskedLM", "fill-mask")
    store = CheckpointStore(tmp_path_factory.mktemp("source"))
    return files_of(store.prepare(spec, WeightsChoice(Weights.TINY, "to be served")).directory)


@pytest.mark.nightly
def test_a_download_from_this_hub_runs(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    with serving_models(ModelHub({"someone/tiny-bert": Repository(tiny)}, busy=1)) as hub:
        result = User(tmp_path).prepare(hub.url, run=True)
    assert result.get("missing") == [], result
    assert result["shape"][0] == 2
    assert hub.busy == 0, "a hub that is busy is waited for"


def test_a_file_that_ends_early_is_the_hubs_error(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    broken = Repository(tiny, truncated=("model.safetensors",))
    with serving_models(ModelHub({"someone/tiny-bert": broken})) as hub:
        message = error_of(User(tmp_path).prepare(hub.url, run=True), HubError)
    assert "someone/tiny-bert" in message


def test_a_file_with_another_checksum_is_not_loaded(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    broken = Repository(tiny, swapped=("model.safetensors",))
    with serving_models(ModelHub({"someone/tiny-bert": broken})) as hub:
        message = error_of(User(tmp_path).prepare(hub.url, run=True), CheckpointError)
    assert "model.safetensors" in message
