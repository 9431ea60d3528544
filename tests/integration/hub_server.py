"""A hub on 127.0.0.1: the endpoints that downloading a snapshot needs, and the errors a hub answers with."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, `someone/tiny-bert`, or an error in its place.

    Attributes:
        files: Content by name.
        status: What every request is answered with instead, if not 200.
        error_code: The hub's name for that error (`X-Error-Code`).
        page_is_public: Whether the error is only for the files, as with a gated model.
        token: The token without which there is no answer.
        fetched: The names of the files that were sent.
        tokens: The authorization headers seen.
    """

    files: dict[str, bytes]
    status: int = 200
    error_code: str = ""
    page_is_public: bool = False
    token: str = ""
    url: str = ""
    fetched: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port and set its `url`."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def files_of(directory: Path) -> dict[str, bytes]:
    """Read a checkpoint directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub, path = self.served, self.path.partition("?")[0]
        sent = self.headers.get("Authorization", "")
        hub.tokens.add(sent)
        api = path.startswith("/api/models/someone/tiny-bert")
        if hub.token and sent != f"Bearer {hub.token}":
            self._send(401, b"", {"X-Error-Code": "GatedRepo"}, with_body=with_body)
        elif hub.status != 200 and not (api and hub.page_is_public):
            self._send(hub.status, b'{"error": "no"}', {"X-Error-Code": hub.error_code}, with_body=with_body)
        elif api:
            self._send(200, json.dumps(self._page(path)).encode(), {}, with_body=with_body)
        else:
            self._send_file(path.rpartition("/")[2], with_body=with_body)

    def _page(self, path: str) -> Any:
        if "/tree/" in path:
            return [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324
                for name, content in self.served.files.items()
            ]
        siblings = [{"rfilename": name} for name in self.served.files]
        return {"id": "someone/tiny-bert", "modelId": "someone/tiny-bert", "sha": COMMIT, "siblings": siblings}

    def _send_file(self, name: str, *, with_body: bool) -> None:
        content = self.served.files.get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
            return
        if with_body:
            self.served.fetched.append(name)
        etag = hashlib.sha1(content).hexdigest()  # noqa: S324
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@dataclass
class Repository:
    """A repository of `ModelHub`.

    Attributes:
        files: Content by name.
        gated: What the files are refused with (401 or 403); 0 where they are public.
        parameters: What the hub says of the safetensors files.
        tags: Tags besides those of the model type.
        truncated: Files of which half is sent.
        swapped: Files that are sent with another content than the hub has hashed.
    """

    files: dict[str, bytes]
    gated: int = 0
    parameters: int | None = None
    tags: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    swapped: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        config: dict[str, Any] = json.loads(self.files.get("config.json", b"{}"))
        return config


@dataclass
class ModelHub:
    """A hub with many repositories, which lists them in pages.

    Attributes:
        repositories: By id, the most downloaded first.
        page: Models per page of a listing.
        busy: How many of the next requests are answered with 429.
        retry_after: The seconds that such an answer asks to wait.
        requests: The paths that were asked for.
    """

    repositories: dict[str, Repository]
    page: int = 2
    busy: int = 0
    retry_after: str = "0"
    url: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving_models(hub: ModelHub) -> Iterator[ModelHub]:
    """Serve a hub on a free port and set its `url`."""

    class Handler(_ModelHandler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _ModelHandler(BaseHTTPRequestHandler):
    served: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args

    def do_GET(self) -> None:
        hub, url = self.served, urlsplit(self.path)
        hub.requests.append(self.path)
        if hub.busy > 0 and url.path.startswith("/api/models"):
            hub.busy -= 1
            self._send(429, b"{}", {"Retry-After": hub.retry_after})
        elif url.path == "/api/models":
            self._list(parse_qs(url.query))
        elif url.path.startswith("/api/models/"):
            owner, name, *rest = url.path.removeprefix("/api/models/").split("/")
            self._describe(f"{owner}/{name}", rest)
        elif url.path.count("/") >= 5:
            owner, name, _resolve, _revision, *file = url.path.strip("/").split("/")
            self._send_file(f"{owner}/{name}", "/".join(file))
        else:
            self._send(200, b"")

    do_HEAD = do_GET  # noqa: N815

    def _list(self, query: dict[str, list[str]]) -> None:
        hub = self.served
        wanted = set(query.get("filter", ())) - {"transformers"}
        found = [
            {
                "id": name,
                "config": {"architectures": repository.config.get("architectures")},
                "gated": "manual" if repository.gated else False,
                "tags": list(repository.tags),
                **(
                    {"safetensors": {"parameters": {}, "total": repository.parameters}} if repository.parameters else {}
                ),
            }
            for name, repository in hub.repositories.items()
            if wanted <= {repository.config.get("model_type"), *repository.tags}
        ]
        first = int(query.get("cursor", ["0"])[0])
        last = first + hub.page
        query["cursor"] = [str(last)]
        more = f'<{hub.url}/api/models?{urlencode(query, doseq=True)}>; rel="next"' if last < len(found) else ""
        self._send(200, json.dumps(found[first:last]).encode(), {"Link": more})

    def _describe(self, name: str, rest: list[str]) -> None:
        repository = self.served.repositories.get(name)
        if repository is None:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324
                for file, content in repository.files.items()
            ]
            self._send(200, json.dumps(files).encode())
        else:
            siblings = [{"rfilename": file} for file in repository.files]
            self._send(200, json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode())

    def _send_file(self, name: str, file: str) -> None:
        repository = self.served.repositories.get(name)
        if repository is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self._send(repository.gated, b"", {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            content = repository.files[file]
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if file in repository.swapped:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if file in repository.truncated and self.command == "GET":
                content = content[: len(content) // 2]
            self._send(200, content, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
