"""Wheels made on the spot, and a package index on this machine that has them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


def write_wheel(
    folder: Path, name: str, version: str, source: str, *, needs: Sequence[str] = (), tag: str = "py3-none-any"
) -> Path:
    """Write a wheel of one package, whose `__init__.py` is `source`."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {each}" for each in needs)]
    files = {
        f"{name}/__init__.py": source,
        f"{about}/METADATA": "\n".join(lines) + "\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


@contextmanager
def serve_index(folder: Path, facts: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[str]:
    """Serve the wheels of a folder as a simple index, in JSON and in HTML as the client asks.

    Args:
        folder: The wheels.
        facts: By file name, what the index says about it besides: `yanked`, `requires-python`.

    Yields:
        The index's address.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts[0] == "files":
                self._answer("application/zip", (folder / parts[1]).read_bytes())
                return
            files = [path for path in sorted(folder.glob("*.whl")) if path.name.split("-")[0] == parts[-1]]
            if not files:
                self.send_error(404)
            elif "json" in self.headers.get("Accept", ""):
                listed = [
                    {
                        "filename": path.name,
                        "url": f"/files/{path.name}",
                        "hashes": {"sha256": sha256(path.read_bytes()).hexdigest()},
                        **(facts or {}).get(path.name, {}),
                    }
                    for path in files
                ]
                page = {"meta": {"api-version": "1.1"}, "name": parts[-1], "versions": [], "files": listed}
                self._answer("application/vnd.pypi.simple.v1+json", json.dumps(page).encode())
            else:
                links = "".join(f'<a href="/files/{path.name}">{path.name}</a>' for path in files)
                self._answer("text/html", links.encode())

        def _answer(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    finally:
        server.shutdown()
        server.server_close()
