"""Downloading a checkpoint, from a hub on this machine that answers like the real one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, GatedError, HubError
from tests.harness import environment
from tests.integration.hub_server import Hub, files_of, serving

PREPARE = """
import json, sys
from pathlib import Path
from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.spec import ModelSpec

cache, wanted, run, allow_pickle = sys.argv[1:]
spec = ModelSpec("someone/tiny-bert", "BertForMaskedLM", "fill-mask", hub_id="someone/tiny-bert", source="test")
store = CheckpointStore(Path(cache), allow_pickle=allow_pickle == "yes")
choice = store.choose(spec, wanted, named=True)
result = {"kind": choice.kind, "reason": choice.reason}
if choice.kind != "pretrained":
    print(json.dumps(result))
    sys.exit()
try:
    checkpoint = store.prepare(spec, choice)
    result["files"] = sorted(path.name for path in checkpoint.directory.iterdir())
    if run == "run":
        model = checkpoint.torch_model("fp32")
        result["missing"] = checkpoint.loading_info()["missing_keys"]
        result["shape"] = list(model(**checkpoint.sample().forward).logits.shape)
except HfAccelError as error:
    result |= {"error": type(error).__name__, "status": error.status, "message": str(error)}
print(json.dumps(result))
"""

TOKEN = "hf_secretsecretsecret"  # noqa: S105

# Enough for everything that does not load the model.
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled",
    "model.fp16.safetensors": b"weights in another form",
    "README.md": b"# Tiny",
}


class User:
    """Somebody with an empty cache."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = ""

    def prepare(
        self, url: str, wanted: str = "pretrained", *, run: bool = False, pickle: bool = False, **extra: str
    ) -> dict[str, Any]:
        """Choose and prepare in a process of its own, because the hub's client reads its settings on import."""
        settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        environ = {**environment(self.directory, HF_HOME=str(self.directory / "hf")), **settings, **extra}
        arguments = [str(self.directory / "built"), wanted, "run" if run else "", "yes" if pickle else "no"]
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, *arguments],
            env=environ,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


@pytest.fixture
def nobody() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def error_of(result: dict[str, Any], expected: type[Exception]) -> str:
    assert result.get("error") == expected.__name__, result
    return str(result["message"])


@pytest.mark.slow
def test_a_named_model_is_downloaded_and_runs(user: User, tmp_path: Path) -> None:
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

    spec = ModelSpec("bert", "BertForMaskedLM", "fill-mask")
    tiny = CheckpointStore(tmp_path / "source").prepare(spec, WeightsChoice(Weights.TINY, "to be served"))
    with serving(Hub(files_of(tiny.directory))) as hub:
        result = user.prepare(hub.url, "auto", run=True)
    assert result["kind"] == "pretrained"
    assert result["reason"] == "named, and on the hub"
    assert result["missing"] == []
    assert result["shape"][0] == 2


def test_only_what_is_needed_is_fetched_and_only_once(user: User) -> None:
    with serving(Hub(FILES)) as hub:
        first = user.prepare(hub.url)
        again = user.prepare(hub.url, "auto")
    assert first["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(hub.fetched) == first["files"]
    assert again["reason"] == "in the local cache"


def test_what_was_downloaded_is_there_offline(user: User) -> None:
    with serving(Hub(FILES)) as hub:
        files = user.prepare(hub.url)["files"]
    offline = user.prepare(hub.url, HF_HUB_OFFLINE="1")
    assert offline["files"] == files


def test_pickled_weights_are_left_where_they_are(user: User) -> None:
    pickled = {name: content for name, content in FILES.items() if not name.endswith(".safetensors")}
    with serving(Hub(pickled)) as hub:
        message = error_of(user.prepare(hub.url), CheckpointError)
        assert "HFACCEL_ALLOW_PICKLE=1" in message
        assert "pytorch_model.bin" not in hub.fetched
        assert "pytorch_model.bin" in user.prepare(hub.url, pickle=True)["files"]


def test_a_gated_model_says_what_it_wants(user: User) -> None:
    with serving(Hub(FILES, status=401, error_code="GatedRepo", page_is_public=True)) as hub:
        result = user.prepare(hub.url)
        chosen = user.prepare(hub.url, "auto")
    message = error_of(result, GatedError)
    assert result["status"] == "gated"
    assert message.startswith("someone/tiny-bert: the hub wants an accepted licence and a token (HTTP 401).")
    assert "HF_TOKEN" in message
    assert chosen["kind"] == "tiny"
    assert chosen["reason"] == "not in the local cache; the hub wants an accepted licence and a token (HTTP 401)"


def test_a_token_opens_it_and_is_never_shown(user: User) -> None:
    with serving(Hub(FILES, token=TOKEN)) as hub:
        error_of(user.prepare(hub.url), GatedError)
        result = user.prepare(hub.url, HF_TOKEN=TOKEN)
    assert result["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert f"Bearer {TOKEN}" in hub.tokens


@pytest.mark.parametrize("status", [401, 404, 500])
def test_no_message_holds_the_token(status: int, user: User) -> None:
    with serving(Hub(FILES, status=status)) as hub:
        assert "error" in user.prepare(hub.url, HF_TOKEN=TOKEN)
    assert f"Bearer {TOKEN}" in hub.tokens
    assert TOKEN not in user.output


def test_an_unknown_model_is_a_mistake_in_its_name(user: User) -> None:
    with serving(Hub(FILES, status=404, error_code="RepoNotFound")) as hub:
        result = user.prepare(hub.url)
        chosen = user.prepare(hub.url, "auto")
    assert "the hub has no such model, or not for this user (HTTP 404)" in error_of(result, ConfigError)
    assert chosen["reason"].endswith("; the hub has no such model, or not for this user (HTTP 404)")


@pytest.mark.parametrize("status", [500, 503])
def test_a_broken_hub_is_the_hubs_error(status: int, user: User) -> None:
    with serving(Hub(FILES, status=status)) as hub:
        result = user.prepare(hub.url)
        chosen = user.prepare(hub.url, "auto")
    assert f"answered with an error (HTTP {status})" in error_of(result, HubError)
    assert result["status"] == "hub_error"
    assert chosen["kind"] == "tiny"
    assert f"HTTP {status}" in chosen["reason"]


def test_files_that_cannot_be_had_are_the_hubs_error(user: User) -> None:
    """The page answers, the files do not."""
    with serving(Hub(FILES, status=403, page_is_public=True)) as hub:
        assert "HTTP 403" in error_of(user.prepare(hub.url), HubError)


def test_a_hub_that_does_not_answer(user: User, nobody: str) -> None:
    result = user.prepare(nobody)
    assert f"the hub at {nobody} did not answer (ConnectionRefusedError)" in error_of(result, HubError)
    assert "--hf-weights tiny" in result["message"]
    assert user.prepare(nobody, "auto")["reason"].startswith(f"not in the local cache; the hub at {nobody} did not ")


def test_offline_says_so(user: User, nobody: str) -> None:
    message = error_of(user.prepare(nobody, HF_HUB_OFFLINE="1"), HubError)
    assert "HF_HUB_OFFLINE switches the hub off" in message
