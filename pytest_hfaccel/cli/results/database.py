"""`hfaccel db`: show, export, import and migrate the benchmark database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json

if TYPE_CHECKING:
    from pytest_hfaccel.history import BenchmarkDatabase


def add_parser(commands: Any) -> None:
    """Add `db` and its actions to the parsers of `hfaccel`."""
    text = "Show, export, import or migrate the benchmark database."
    actions = commands.add_parser(
        "db", help="show, export, import or migrate the benchmark database", description=text
    ).add_subparsers(title="actions", metavar="ACTION", required=True)
    info = _add(actions, "info", _info, "show the contents of the database")
    info.add_argument("--json", action="store_true", help="print it as JSON")
    export = _add(actions, "export", _export, "write it to Parquet files")
    export.add_argument("target", help="a file *.parquet for the measurements, or a directory for everything")
    source = _add(actions, "import", _import, "import an export, another database or the journal of a run")
    source.add_argument("source", help="Parquet file, directory, database (.duckdb) or journal (.jsonl)")
    _add(actions, "migrate", _migrate, "bring a database of an older version to the current one")


def _add(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "--db-path", type=Path, metavar="FILE", help="the database (default: BENCHMARK_DB_PATH, or hfaccel.duckdb)"
    )
    parser.set_defaults(run=run)
    return parser


def _path(arguments: argparse.Namespace) -> Path:
    from pytest_hfaccel.history import default_database_path

    return arguments.db_path or default_database_path()


def _open(arguments: argparse.Namespace, *, create: bool = False) -> BenchmarkDatabase:
    from pytest_hfaccel.history import BenchmarkDatabase

    return BenchmarkDatabase(_path(arguments), create=create)


def _info(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.history.schema import describe

    content = describe(_path(arguments))
    if arguments.json:
        print_json(content)
        return 0
    age = "current" if content["schema_version"] == content["current_version"] else "older: `hfaccel db migrate`"
    print(f"{content['path']}: {content['bytes'] / 2**20:.1f} MiB, schema version {content['schema_version']} ({age})")
    print(f"Last run: {content['last_run'] or 'none'}{' UTC' if content['last_run'] else ''}")
    for table, rows in content["rows"].items():
        print(f"  {table}: {rows}")
    print("Devices:" if content["devices"] else "Devices: none")
    for device in content["devices"]:
        print(f"  {device['kind']}: {device['name'] or 'unnamed'}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    for path in _open(arguments).export_parquet(arguments.target):
        print(path)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    database = _open(arguments, create=True)
    source = Path(arguments.source)
    if source.suffix in (".duckdb", ".db"):
        added = database.merge(source)
    elif source.suffix == ".jsonl":
        added = database.import_journal(source)
    else:
        added = database.import_parquet(source)
    print(f"{database.path}: new rows from {source}")
    for table, rows in added.items():
        print(f"  {table}: {rows}")
    return 0


def _migrate(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.history.schema import describe

    before = describe(_path(arguments))["schema_version"]
    database = _open(arguments)
    now = describe(database.path)["schema_version"]
    print(f"{database.path}: schema version {now}" + (f", from {before}" if now != before else ", nothing to do"))
    return 0
