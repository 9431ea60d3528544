"""Makes the pictures of the documentation from real runs: `make pictures`; `make.py report`, say, makes one.

`report.png` is the page of a run, and `support_site.png` the support site of the sweeps in docs/data, in a browser:
Chromium (that of `npm ci` will do), Chrome or Edge, driven by Playwright. For `terminal.svg` the
commands run in a terminal of their own (a pty) in a new folder; rich draws what they print. A line of the recording
appears when it was printed, but waiting is cut to `_LONGEST_WAIT` seconds. What shows no animation shows all lines.
"""

from __future__ import annotations

import io
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FOLDER = Path(__file__).parent
COMMANDS = (
    "hfaccel init --model distilbert-base-uncased",
    "pytest --hf-device cpu,openvino:CPU -q",
    "hfaccel doctor",
)
REPORT = (
    "pytest --pyargs pytest_hfaccel.model_classes -n 2 --hf-weights tiny --hf-dtype fp32,bf16 "
    "--hf-device cpu,openvino:CPU,onnxruntime:CPU --hf-model bert-base-uncased --hf-model gpt2 --hf-model t5-small "
    "--hf-model google/vit-base-patch16-224 --hf-model openai/clip-vit-base-patch32 "
    "--hf-model facebook/wav2vec2-base-960h"
)
SITE_ADDRESS = "matrix?q=SamModel&open=class:SamModel"
_SIZE = {"width": 1180, "height": 660}
_COLORS = 256
_LARGEST = 200_000
"""Bytes that a picture may have: whoever opens README.md loads it."""
_MODULES = {"hfaccel": "pytest_hfaccel", "pytest": "pytest"}
_COLUMNS = 124
_LONGEST_WAIT = 1.2


def environment_of(directory: Path) -> dict[str, str]:
    """The environment of a run without hub, whose caches are beside its directory."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HFACCEL_", "HF_", "PYTEST_"))}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(directory.parent / "hf"),
        "HFACCEL_CACHE": str(directory.parent / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def record(command: str, directory: Path) -> list[tuple[float, str]]:
    """Run a command in a terminal; return its lines, each with the seconds at which it was complete.

    Raises:
        SystemExit: It failed.
    """
    environment = {**environment_of(directory), "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS)}
    master, slave = pty.openpty()
    program, *arguments = shlex.split(command)
    run = [sys.executable, "-m", _MODULES[program], *arguments]
    process = subprocess.Popen(run, cwd=directory, env=environment, stdout=slave, stderr=slave)
    os.close(slave)
    started, data, lines = time.monotonic(), b"", []
    while process.poll() is None or select.select([master], [], [], 0.2)[0]:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            data += os.read(master, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        *whole, data = data.split(b"\n")
        lines += [(time.monotonic() - started, text.decode(errors="replace")) for text in whole]
    os.close(master)
    if process.wait() != 0:
        sys.exit(f"{command} ended with {process.returncode}:\n" + "\n".join(text for _, text in lines))
    # A line that was drawn again and again shows what was drawn last.
    drawn = [(at, text.rstrip("\r").rpartition("\r")[2]) for at, text in lines]
    return [(at, text.replace(str(directory), "~/project").replace(str(directory.parent), "~")) for at, text in drawn]


def draw(title: str, commands: tuple[str, ...], directory: Path) -> str:
    """Run commands one after the other; return an SVG with what they printed."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    shown: list[float] = []  # seconds at which each row of the picture appears
    clock = 0.0
    for command in commands:
        clock += _LONGEST_WAIT
        prompt = Text(f"$ {command}", style="bold")
        before = 0.0
        for at, line in [(0.0, None), *record(command, directory)]:
            text = prompt if line is None else Text.from_ansi(line)
            clock += min(at - before, _LONGEST_WAIT)
            before = at
            rows = max(1, len(text.wrap(console, _COLUMNS)))
            console.print(text)
            shown += [clock] * rows
        console.print()
        shown.append(clock)
    drawing = console.export_svg(title=title, theme=MONOKAI)
    # Not from the network: whoever looks at the picture has a font of fixed width.
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)

    def appear(found: re.Match[str]) -> str:
        return f'{found[0]} style="animation: wait {shown[min(int(found[1]), len(shown) - 1)]:.2f}s"'

    drawing = re.sub(r'clip-path="url\(#[\w-]+-line-(\d+)\)"', appear, drawing)
    return drawing.replace("</style>", "@keyframes wait { from, to { visibility: hidden; } }\n    </style>", 1)


def photograph(page: Path, picture: Path, address: str = "") -> None:
    """Write what a browser shows first of a page.

    Args:
        page: The HTML file.
        picture: The PNG file.
        address: What follows `#`.

    Raises:
        BackendUnavailable: There is no browser.
        SystemExit: The picture is too large.
    """
    from PIL import Image

    from pytest_hfaccel.backends.browser.browser import browser_for_reading

    with browser_for_reading() as browser:
        tab = browser.new_context(viewport=_SIZE, device_scale_factor=1.5, color_scheme="light").new_page()
        tab.goto(f"{page.as_uri()}#{address}")
        tab.wait_for_selector("html[data-ready]")
        tab.wait_for_timeout(300)
        shot = tab.screenshot()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(
        _COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    ).save(picture, optimize=True)
    if picture.stat().st_size > _LARGEST:
        sys.exit(f"{picture} has {picture.stat().st_size} bytes, more than {_LARGEST}")


def main() -> None:
    """Write the pictures."""
    wanted = sys.argv[1:] or ["terminal", "report", "site"]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "project")
        directory.mkdir()
        if "terminal" in wanted:
            (FOLDER / "terminal.svg").write_text(draw("pytest-hfaccel", COMMANDS, directory), encoding="utf-8")
        if "report" in wanted:
            report = Path(folder, "report")
            report.mkdir()
            _, *arguments = shlex.split(REPORT)
            # Some checks may fail: the picture is of the truth.
            done = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=report, env=environment_of(report))
            if done.returncode not in (0, 1):
                sys.exit(f"{REPORT} ended with {done.returncode}")
            photograph(report / "reports" / "index.html", FOLDER / "report.png")
        if "site" in wanted:
            runs = sorted(FOLDER.parent.glob("data/support_*.json.xz"))
            command = [sys.executable, "-m", "pytest_hfaccel", "site", *map(str, runs), "--output", folder]
            subprocess.run(command, check=True)
            photograph(Path(folder, "index.html"), FOLDER / "support_site.png", SITE_ADDRESS)


if __name__ == "__main__":
    main()
