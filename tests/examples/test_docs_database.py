"""The examples of `docs/benchmark_database.md` run, one after the other, and print what the guide says they print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.history.schema import TABLES, VIEWS, columns_of, create_schema
from tests.harness import environment, run_python

GUIDE = Path(__file__).parents[2] / "docs" / "benchmark_database.md"
TEXT = GUIDE.read_text(encoding="utf-8")
# A Python block, and the text block that directly follows it.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for code in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in code.splitlines()
]
DRIVER = """
import contextlib, io, json, sys, traceback
names, printed = {"__name__": "guide"}, []
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            exec(code, names)
        except Exception:
            output.write(traceback.format_exc())
    printed.append(output.getvalue())
json.dump(printed, sys.stdout)
"""


def blocks() -> list[tuple[str, str, str]]:
    """The heading above each block, its code, and what it prints."""
    found = []
    for match in BLOCK.finditer(TEXT):
        heading = re.findall(r"^## (.*)$", TEXT[: match.start()], re.MULTILINE)[-1]
        found.append((heading, match["code"], match["output"] or ""))
    return found


def run(folder: Path, *arguments: str, given: str = "") -> str:
    """Run Python in a folder and return what it printed."""
    env = environment(folder)
    env.pop("BENCHMARK_DB_PATH", None)
    done = run_python(arguments, folder, env, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples: the commands use what the Python blocks wrote."""
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def printed(place: Path) -> list[str]:
    """What each block printed."""
    found: list[str] = json.loads(run(place, "-c", DRIVER, given=json.dumps([code for _, code, _ in blocks()])))
    return found


def test_the_blocks_are_found() -> None:
    assert len(blocks()) == TEXT.count("```python") >= 8
    assert len(COMMANDS) >= 7
    assert all(command.startswith("hfaccel db ") for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks())), ids=[heading for heading, _, _ in blocks()])
def test_a_block_prints_what_the_guide_says(index: int, printed: list[str]) -> None:
    assert printed[index] == blocks()[index][2]


@pytest.mark.slow
@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, place: Path) -> None:
    assert run(place, "-m", "pytest_hfaccel", *shlex.split(command)[1:])


def test_the_guide_names_every_table_view_and_column() -> None:
    with duckdb.connect() as connection:
        create_schema(connection)
        names = {name: set(columns_of(connection, name)) for name in (*TABLES, "schema_version")}
    for table, columns in names.items():
        [line] = [line for line in TEXT.splitlines() if line.startswith(f"| `{table}` |")]
        assert set(re.findall(r"`(\w+)`", line)) - {table} == columns
    assert {view for view in VIEWS if f"| `{view}` |" not in TEXT} == set()


def test_the_guide_names_every_method_and_every_filter() -> None:
    import inspect

    from pytest_hfaccel.history import BenchmarkDatabase

    methods = {name for name in vars(BenchmarkDatabase) if not name.startswith("_")}
    assert {name for name in methods if not re.search(rf"[`.]{name}\b", TEXT)} == set()
    filters = set(inspect.signature(BenchmarkDatabase.measurements).parameters) - {"self"}
    assert {name for name in filters if f"`{name}`" not in TEXT} == set()
