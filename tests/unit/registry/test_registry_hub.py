"""Models that only the hub knows, against a hub on the loopback device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.harness import environment, run_python

TOKEN = "hf_of_the_test"  # noqa: S105
CONFIG = json.dumps({"architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 50272}).encode()
LISTING = [
    {"id": "org/other-class", "downloads": 9, "config": {"architectures": ["BertModel"]}, "gated": False},
    {"id": "bert-base-uncased", "downloads": 8, "config": {"architectures": ["BertForMaskedLM"]}, "gated": False},
    {
        "id": "org/popular-bert",
        "downloads": 7,
        "config": {"architectures": ["BertForMaskedLM"]},
        "gated": "manual",
        "safetensors": {"parameters": {"F32": 1000}, "total": 1000},
    },
    {"id": "org/no-config", "downloads": 6, "gated": False},
]


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: `X-Error-Code` tells a missing repository from a missing file."""

    seen: ClassVar[list[tuple[str, str, str | None]]] = []
    ERRORS: ClassVar[dict[str, tuple[int, str]]] = {
        "org/gone": (401, "RepoNotFound"),
        "org/gated": (403, "GatedRepo"),
        "org/no-config": (404, "EntryNotFound"),
        "org/forbidden": (403, ""),
    }

    def _answer(self) -> None:
        url = urlsplit(self.path)
        Hub.seen.append((self.command, self.path, self.headers.get("authorization")))
        if url.path == "/api/models":
            assert "transformers" in parse_qs(url.query)["filter"]
            self._send(200, json.dumps(LISTING).encode())
            return
        repo = "/".join(url.path.split("/")[1:3])
        if repo in self.ERRORS:
            status, code = self.ERRORS[repo]
            self._send(status, b"", {"X-Error-Code": code} if code else {})
            return
        self._send(200, CONFIG, {"ETag": '"e1"', "X-Repo-Commit": "0" * 40})

    do_GET = do_HEAD = _answer  # noqa: N815

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(arguments: list[str], home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.upper().startswith("HF")}
    clean |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environ}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=clean, check=False)


RESOLVE = """
import dataclasses, json, sys, time
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.registry import load_registry, resolve_model
for name in sys.argv[1:]:
    waits = []
    time.sleep = waits.append  # huggingface_hub waits between its retries
    try:
        found = dataclasses.asdict(resolve_model(name, load_registry())[0])
    except HfAccelError as error:
        found = {"error": type(error).__name__, "text": str(error), "waits": waits}
    print(json.dumps(found))
"""


def resolve(names: list[str], home: Path, **environ: str) -> dict[str, dict[str, Any]]:
    done = run(["-c", RESOLVE, *names], home, **environ)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def answers(endpoint: str, home: Path) -> dict[str, dict[str, Any]]:
    names = ["org/opt", "org/gone", "org/gated", "org/no-config", "org/forbidden", "openai/whisper-tinny"]
    Hub.ERRORS["openai/whisper-tinny"] = (401, "RepoNotFound")
    return resolve(names, home, HF_ENDPOINT=endpoint, HF_TOKEN=TOKEN)


def test_an_unregistered_model_is_learned_from_its_config(answers: dict[str, dict[str, Any]]) -> None:
    spec = answers["org/opt"]
    assert (spec["architecture"], spec["task"], spec["hub_id"]) == ("OPTForCausalLM", "text-generation", "org/opt")
    assert (spec["dims"], spec["path"], spec["source"]) == ({"vocab_size": 50272}, "", "config.json in the hub")


def test_only_the_config_is_asked_for_and_with_the_token(answers: dict[str, dict[str, Any]]) -> None:
    asked = [(path, token) for _, path, token in Hub.seen if path.startswith("/org/opt/")]
    assert {path for path, _ in asked} == {"/org/opt/resolve/main/config.json"}
    assert {token for _, token in asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in json.dumps(answers)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("org/gone", "ConfigError", "org/gone: the hub has no such model, or not for this user (HTTP 40"),
        ("org/gated", "GatedError", "org/gated: the hub wants an accepted licence and a token (HTTP 40"),
        ("org/no-config", "ConfigError", "org/no-config: its repository has no config.json."),
        ("org/forbidden", "HubError", "org/forbidden: the hub at http://127.0.0.1:"),
    ],
)
def test_what_the_hub_refuses(answers: dict[str, dict[str, Any]], name: str, error: str, text: str) -> None:
    assert answers[name]["error"] == error
    assert answers[name]["text"].startswith(text)


def test_a_slip_of_the_pen_is_noticed(answers: dict[str, dict[str, Any]]) -> None:
    assert "It is not registered. Did you mean 'openai/whisper-tiny'?" in answers["openai/whisper-tinny"]["text"]


def test_the_local_cache_needs_no_hub(answers: dict[str, dict[str, Any]], home: Path) -> None:
    found = resolve(["org/opt", "org/never-seen"], home, HF_HUB_OFFLINE="1")
    assert found["org/opt"]["dims"] == answers["org/opt"]["dims"]
    assert found["org/opt"]["source"] == "config.json in the local hub cache"
    assert found["org/never-seen"]["error"] == "HubError"
    assert (
        "HF_HUB_OFFLINE switches the hub off, and the local hub cache does not hold it."
        in found["org/never-seen"]["text"]
    )


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    found = resolve(["org/opt"], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")["org/opt"]
    assert found["error"] == "HubError"
    assert found["text"].startswith("org/opt: the hub at http://127.0.0.1:9 did not answer (ConnectionRefusedError).")
    assert not found["waits"], "without a network every model would cost a user all retries"


@pytest.mark.slow
def test_sync_prints_what_is_popular_and_not_registered(endpoint: str, home: Path) -> None:
    done = run(
        ["-m", "pytest_hfaccel", "registry", "sync", "BertForMaskedLM", "--limit", "2"], home, HF_ENDPOINT=endpoint
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "version: 1\n\nmodels:\n  # BertForMaskedLM, most downloaded first\n"
        "  org/popular-bert:\n    architecture: BertForMaskedLM\n    gated: true\n    parameters: 1000\n"
    )
    asked = parse_qs(urlsplit([path for _, path, _ in Hub.seen if path.startswith("/api/models")][-1]).query)
    assert (asked["filter"], asked["sort"]) == (["transformers", "bert"], ["downloads"])


@pytest.mark.slow
def test_sync_without_a_hub_says_so(home: Path) -> None:
    command = ["-m", "pytest_hfaccel", "registry", "sync", "BertForMaskedLM"]
    done = run_python(command, home, environment(home))  # which is offline
    assert done.returncode == 1
    assert "BertForMaskedLM: HF_HUB_OFFLINE switches the hub off." in done.stderr
    assert "Traceback" not in done.stderr
