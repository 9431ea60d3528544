"""A web server on the loopback interface: it gives a browser its files, and each page its commands.

It is the browser's proxy, too, and refuses what it is asked to fetch: a page reaches nothing but this server, and what
was asked for stands in `Server.refused`.
"""

from __future__ import annotations

import json
import mimetypes
import secrets
import struct
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_POLL_S = 20.0
"""A page that asks for its next command is answered after so long, with nothing; it asks again then."""

_ALIGNMENT = 8
_LENGTH = struct.Struct("<I")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_HEADERS = {
    # With these two a page is isolated, without which WebAssembly has no threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Arrays = Mapping[str, NDArray[Any]]


class PageLost(Exception):
    """A page is gone: it crashed, its browser was killed, or it was closed."""


class PageSilent(Exception):
    """A page did not answer in time."""


class Reply(NamedTuple):
    """What came of a command."""

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def pack(header: Mapping[str, Any], arrays: Arrays) -> list[bytes]:
    """Return a frame, in pieces; see `page.js`."""
    tensors, pieces = [], []
    for name, array in arrays.items():
        data = np.ascontiguousarray(array)
        tensors.append({"name": name, "type": str(data.dtype), "dims": list(array.shape), "nbytes": data.nbytes})
        pieces += [data.tobytes(), bytes(-data.nbytes % _ALIGNMENT)]
    text = json.dumps({**header, "tensors": tensors}).encode()
    return [_LENGTH.pack(len(text)), text, bytes(-(4 + len(text)) % _ALIGNMENT), *pieces]


def unpack(frame: bytes) -> Reply:
    """Return what a frame says; the arrays are views of it."""
    (length,) = _LENGTH.unpack_from(frame)
    header = json.loads(frame[4 : 4 + length])
    offset = 4 + length + -(4 + length) % _ALIGNMENT
    arrays = {}
    for tensor in header.pop("tensors"):
        dtype = np.dtype(tensor["type"])
        values = np.frombuffer(frame, dtype, tensor["nbytes"] // dtype.itemsize, offset)
        arrays[tensor["name"]] = values.reshape(tensor["dims"])
        offset += tensor["nbytes"] + -tensor["nbytes"] % _ALIGNMENT
    return Reply(header, arrays)


class Channel:
    """The way to one page. One command at a time is on it.

    Attributes:
        name: Its name in addresses.
        lost: Why the page is gone; empty while it is there.
    """

    def __init__(self) -> None:
        self.name = secrets.token_urlsafe(8)
        self.lost = ""
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._calls = 0
        self._waiting: list[bytes] | None = None
        self._reply: Reply | None = None

    def call(self, command: str, timeout: float, arrays: Arrays | None = None, **arguments: Any) -> Reply:
        """Have the page run a command.

        Args:
            command: One of `commands` in `page.js`.
            timeout: Seconds to wait for the reply.
            arrays: Tensors that go with it.
            **arguments: JSON values that go with it.

        Raises:
            PageLost: The page is gone, or went meanwhile.
            PageSilent: It did not reply in time.
        """
        with self._one_at_a_time, self._changed:
            self._calls += 1
            self._reply = None
            self._waiting = pack({"command": command, "call": self._calls, **arguments}, arrays or {})
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._reply is not None or self.lost, timeout)
            if self._reply is not None:
                return self._reply
            if self.lost:
                raise PageLost(self.lost)
            raise PageSilent(f"the page did not answer {command!r} within {timeout:.0f} s")

    def lose(self, why: str) -> None:
        """Say that the page is gone; the first reason stays."""
        with self._changed:
            self.lost = self.lost or why
            self._changed.notify_all()

    def next_command(self) -> list[bytes] | None:
        """Wait for the next command of this page; `None` where there is none yet."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self.lost, _POLL_S)
            command, self._waiting = self._waiting, None
            return command

    def answer(self, call: int, reply: Reply) -> None:
        """Take the page's reply to a command."""
        with self._changed:
            if call == self._calls:
                self._reply = reply
                self._changed.notify_all()


class Server(ThreadingHTTPServer):
    """Serves folders and pages under a secret address of this machine.

    Args:
        folders: Folders by their first name in an address, e.g. `ort`.

    Attributes:
        address: Where it listens: `127.0.0.1:<port>`.
        base: The address under which everything is.
        refused: What it was asked to fetch from elsewhere, as a proxy.
    """

    daemon_threads = True

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        # Other users of this machine could ask, too, but do not know where.
        self._secret = secrets.token_urlsafe(16)
        self.base = f"http://{self.address}/{self._secret}/"
        self.refused: list[str] = []
        self._folders = dict(folders)
        self._channels: dict[str, Channel] = {}
        threading.Thread(target=self.serve_forever, daemon=True, name="hfaccel-browser-server").start()

    def share(self, folder: Path) -> str:
        """Serve a folder; return its first name in addresses."""
        name = secrets.token_urlsafe(8)
        self._folders[name] = folder
        return name

    def unshare(self, name: str) -> None:
        """Serve a folder no longer."""
        self._folders.pop(name, None)

    def open_channel(self) -> Channel:
        """Return the way to a page that is to be opened."""
        channel = Channel()
        self._channels[channel.name] = channel
        return channel

    def close_channel(self, channel: Channel, why: str) -> None:
        """Give a channel up; its page stops asking."""
        channel.lose(why)
        self._channels.pop(channel.name, None)

    def lose_all(self, why: str) -> None:
        """Say of every page that it is gone."""
        for channel in list(self._channels.values()):
            self.close_channel(channel, why)

    def close(self) -> None:
        """Stop listening."""
        self.lose_all("the server was closed")
        self.shutdown()
        self.server_close()

    def channel(self, name: str) -> Channel | None:
        """Return the channel of that name."""
        return self._channels.get(name)

    def names_in(self, path: str) -> list[str] | None:
        """Return the parts of an address behind the secret one; `None` where it lacks that."""
        parts = path.partition("?")[0].lstrip("/").split("/")
        return parts[1:] if secrets.compare_digest(parts[0], self._secret) else None

    def file(self, names: Sequence[str]) -> Path | None:
        """Return the file at an address, if it is in a folder that is served."""
        folder = self._folders.get(names[0] if len(names) > 1 else "")
        if folder is None:
            return None
        file = folder.joinpath(*names[1 if len(names) > 1 else 0 :])
        # What is in a folder may be a link to elsewhere (the hub's cache); an address may not lead out of it.
        return file if ".." not in names and file.is_file() else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that is closed leaves requests behind."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        names = self._names()
        if names is None:
            return
        if names[0] == "next" and len(names) > 1:
            self._send_next(self.server.channel(names[1]))
            return
        file = self.server.file(names)
        if file is None:
            self._send(404)
            return
        with_content = self.command != "HEAD"
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with file.open("rb") as stream:
            self._head(200, file.stat().st_size, kind)
            if with_content:
                self.connection.sendfile(stream)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        names = self._names()
        if names is None:
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        channel = self.server.channel(names[1]) if len(names) > 1 else None
        if channel is None:
            self._send(410)
            return
        if names[0] == "lost":
            channel.lose(body.decode(errors="replace"))
        elif names[0] == "done" and len(names) > 2:
            channel.answer(int(names[2]), unpack(body))
        self._send(200)

    def do_CONNECT(self) -> None:
        self._refuse()

    do_OPTIONS = do_PUT = do_DELETE = do_CONNECT  # noqa: N815 - http.server's names

    def _names(self) -> list[str] | None:
        """Return the parts of the address; `None`, with an answer sent, where it is none of ours."""
        if not self.path.startswith("/"):  # a proxy is asked for a whole address
            self._refuse()
            return None
        names = self.server.names_in(self.path)
        if not names:
            self._send(404)
        return names or None

    def _refuse(self) -> None:
        self.server.refused.append(self.path)
        self.close_connection = True
        self._send(403)

    def _send_next(self, channel: Channel | None) -> None:
        command = channel.next_command() if channel is not None else None
        if channel is None or channel.lost:
            self._send(410)
        elif command is None:
            self._send(204)
        else:
            self._head(200, sum(map(len, command)), "application/octet-stream")
            self.wfile.write(b"".join(command))

    def _send(self, status: int) -> None:
        self._head(status, 0, "text/plain")

    def _head(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
