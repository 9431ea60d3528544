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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
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
