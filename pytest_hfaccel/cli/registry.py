"""`hfaccel registry`: what is registered, whether a registry file is sound, and what could be added."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError, first_line
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry import Registry, load_registry, missing_dependencies, unsupported_transformers
from pytest_hfaccel.reporting.tables import format_table


def add_parser(commands: Any) -> None:
    """Add `registry` and its subcommands to the parsers of `hfaccel`."""
    text = "List the registered models, check registry files, add models to them, and find popular models on the hub."
    registry = commands.add_parser("registry", help="list, check, add and find models", description=text)
    actions = registry.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = _add_action(actions, "list", "Show the registered models.", _list)
    action.add_argument("pattern", nargs="?", default="*", help="wildcard over model names, e.g. 'bert*'")
    action.add_argument("--json", action="store_true", help="print everything that is known, as JSON")

    action = _add_action(actions, "check", "Check registry files, and that what they name is installed.", _check)
    action.add_argument("files", nargs="*", type=Path, help="files to check (default: the shipped registry)")
    text = "list the classes of transformers that have no entry or no module"
    action.add_argument("--classes", action="store_true", help=text)
    text = "model class modules (default: %(default)s)"
    action.add_argument("--modules", type=Path, metavar="DIR", default=Path("model_classes"), help=text)
    text = "rows that benchmarks/tiny_checkpoints.py wrote: list the classes without a checkpoint"
    action.add_argument("--sweep", type=Path, metavar="ROWS", help=text)

    action = _add_action(actions, "add", "Add a model to a registry file.", _add)
    action.add_argument("model", help="local directory or hub id")
    action.add_argument("--to", required=True, type=Path, metavar="FILE", help="registry file; created if missing")
    action.add_argument("--name", help="name of the entry (default: the hub id, or the directory's name)")

    text = "Find popular models on the hub and show what a registry file would gain; --apply writes it."
    action = _add_action(actions, "sync", text, _sync)
    text = "architecture class: print entries without dims, as a file of their own (default: all registered ones)"
    action.add_argument("architecture", nargs="*", help=text)
    text = "architecture class; may be repeated"
    action.add_argument("--class", dest="classes", action="append", default=[], metavar="CLASS", help=text)
    action.add_argument("--all-classes", action="store_true", help="every class that the installed transformers maps")
    action.add_argument("--top", "--limit", dest="top", type=int, default=5, help="models per class (default: 5)")
    text = "registry file to compare with (default: registry.yaml)"
    action.add_argument("--to", type=Path, metavar="FILE", default=Path("registry.yaml"), help=text)
    action.add_argument("--apply", action="store_true", help="write the file")
    text = "ask the hub again instead of using its answers of the last day"
    action.add_argument("--refresh", action="store_true", help=text)


def _add_action(
    actions: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    action.add_argument(
        "--registry", action="append", metavar="FILE", help="registry file that adds to or overrides the shipped one"
    )
    action.set_defaults(run=run)
    return action


def _load(arguments: argparse.Namespace) -> Registry:
    config = RunConfig.from_values({"registries": arguments.registry})
    return load_registry(config.registry_files, cache_dir=config.cache_dir)


def _list(arguments: argparse.Namespace) -> int:
    specs = _load(arguments).match(arguments.pattern)
    if arguments.json:
        print_json([asdict(spec) for spec in specs])
        return 0
    rows = [("MODEL", "CLASS", "TASK", "PARAMETERS", "GATED")] + [_row(spec) for spec in specs]
    print(*format_table(rows), sep="\n")
    return 0


def _row(spec: ModelSpec) -> tuple[str, ...]:
    parameters = f"{spec.parameters / 1e6:,.1f} M" if spec.parameters else ""
    return (spec.name, spec.architecture, spec.task, parameters, "yes" if spec.gated else "")


def _check(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.checks import built_in_checks
    from pytest_hfaccel.registry.installed import unknown_architectures

    others = dict.fromkeys(load_registry().specs) if arguments.files else {}
    arguments.registry = [*(arguments.registry or ()), *map(str, arguments.files)]
    specs = [spec for spec in _load(arguments).specs if spec not in others]
    unsupported = {spec.name: reason for spec in specs if (reason := unsupported_transformers(spec))}
    problems = unknown_architectures(spec for spec in specs if spec.name not in unsupported)
    problems += [
        f"{spec.source}: models.{spec.name}: needs {text}" for spec in specs for text in missing_dependencies(spec)
    ]
    problems += [] if arguments.files else _stale()
    for line in problems:
        print(line, file=sys.stderr)
    for name, reason in unsupported.items():
        print(f"note: {name} {reason}")
    for text in _load(arguments).unknown_checks(check.name for check in built_in_checks()):
        print(f"note: {first_line(text)} A plugin may register it.")
    print(f"{len(specs)} models checked, {len(problems)} problems")
    if not arguments.files:
        _cover(arguments, specs)
    return 1 if problems else 0


def _stale() -> list[str]:
    """Return what our tables say about model types that the installed transformers does not have."""
    from pytest_hfaccel.checkpoints.tables import CLASS_OVERRIDES, OVERRIDES, SPECIAL_INPUTS
    from pytest_hfaccel.registry.installed import model_classes, model_types, stale_heads

    known = model_types() | model_classes()
    tables: list[tuple[str, Iterable[str]]] = [
        ("checkpoints/tables: OVERRIDES", OVERRIDES),
        ("checkpoints/tables: CLASS_OVERRIDES", CLASS_OVERRIDES),
        ("checkpoints/tables: SPECIAL_INPUTS", SPECIAL_INPUTS),
    ]
    lines = [f"{table}: no model type or class {key!r}" for table, keys in tables for key in set(keys) - known]
    return sorted(lines) + [f"registry/auto_classes.py: there is no {text}" for text in stale_heads()]


def _cover(arguments: argparse.Namespace, specs: list[ModelSpec]) -> None:
    """Tell which classes of the installed transformers can be tested without being registered, and which cannot."""
    from pytest_hfaccel.registry.auto_classes import every_pair
    from pytest_hfaccel.registry.installed import classes_without_entry, pairs_without_checkpoint

    missing = classes_without_entry(spec.architecture for spec in specs)
    print(f"{len(every_pair())} classes by name, such as opt/OPTForCausalLM; {len(missing)} have no entry")
    if arguments.classes:
        print("\n".join(f"no entry: {name}" for name in missing))
    if arguments.modules.is_dir():
        _show_modules(arguments)
    if arguments.sweep:
        for name, why in pairs_without_checkpoint(arguments.sweep).items():
            print(f"no tiny checkpoint: {name}: {why}")


def _show_modules(arguments: argparse.Namespace) -> None:
    from pytest_hfaccel.registry.auto_classes import every_pair
    from pytest_hfaccel.registry.installed import read_modules, without_module

    architectures = dict.fromkeys(spec.architecture for spec in every_pair())
    missing = without_module(architectures, read_modules(arguments.modules))
    carried = sum(missing.values())
    own = len(architectures) - len(missing)
    print(
        f"{arguments.modules}: {own} classes have their own module, {carried} are carried by one for every class, "
        f"{len(missing) - carried} have no module"
    )
    if arguments.classes:
        print("\n".join(f"no module: {name}" for name, is_carried in missing.items() if not is_carried))


def _add(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.registry.additions import add_entry, entry_of
    from pytest_hfaccel.registry.installed import default_config
    from pytest_hfaccel.registry.resolution import resolve_unregistered

    spec = resolve_unregistered(arguments.model, _load(arguments))
    name = arguments.name or (Path(spec.path).name if spec.path else spec.hub_id)
    entry = entry_of(replace(spec, name=name), default_config(spec.architecture))
    add_entry(arguments.to, name, entry)
    print(f"{arguments.to}: added {name} ({spec.architecture}, {spec.task})")
    if spec.requires_remote_code:
        print(
            "note: it needs the code of its repository. Read that code; `requires_remote_code: true` in the entry and"
        )
        print("--hf-trust-remote-code then run it.")
    return 0


def _sync(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.registry.auto_classes import every_pair
    from pytest_hfaccel.registry.installed import require_class
    from pytest_hfaccel.registry.sync import sync

    if arguments.top < 1:
        raise ConfigError(f"--top: {arguments.top} is not allowed; it must be 1 or more.")
    if not (arguments.classes or arguments.all_classes):
        return _print_popular(arguments)
    for architecture in arguments.classes:
        require_class(architecture)
    file: Path = arguments.to
    arguments.registry = [*(arguments.registry or ()), *([str(file)] if file.exists() else [])]
    registry = _load(arguments)
    classes = [*arguments.classes, *(spec.architecture for spec in every_pair() if arguments.all_classes)]
    found = sync(
        dict.fromkeys(classes),
        file,
        registry,
        top=arguments.top,
        cache=RunConfig.from_values({}).cache_dir,
        refresh=arguments.refresh,
        note=_note,
    )
    _note("")
    print(found.diff(), end="")
    for line in found.differing:
        print(f"note: {line}", file=sys.stderr)
    for name, why in found.skipped.items():
        print(f"note: {name}: no entry: {why}", file=sys.stderr)
    if arguments.apply:
        found.apply()
    what = "added to" if arguments.apply else "to add to"
    print(f"{len(found.entries)} models {what} {file}, {found.known} are registered", file=sys.stderr)
    if found.entries and not arguments.apply:
        print("The same command with --apply writes the file.", file=sys.stderr)
    if found.problem:
        print(f"hfaccel: not asked to the end: {found.problem} The same command goes on there.", file=sys.stderr)
    return int(bool(found.problem))


def _note(what: str) -> None:
    """Show on a terminal which class the hub is asked for, in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def _print_popular(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.registry.additions import entry_text
    from pytest_hfaccel.registry.hub import popular_models
    from pytest_hfaccel.registry.installed import model_type_of, require_class

    if arguments.apply:
        raise ConfigError("--apply: say with --class or --all-classes for which classes.")
    registry = _load(arguments)
    for architecture in arguments.architecture:
        require_class(architecture)
    known = {spec.hub_id for spec in registry.specs} | {spec.name for spec in registry.specs}
    lines = ["version: 1", "", "models:"]
    for architecture in arguments.architecture or registry.classes:
        model_type = model_type_of(architecture)
        tags = ["transformers", *([model_type] if model_type else [])]
        lines.append(f"  # {architecture}, most downloaded first")
        for model in popular_models(architecture, tags, arguments.top):
            if model.hub_id not in known:
                entry: dict[str, Any] = {"architecture": architecture}
                entry |= {"gated": True} if model.gated else {}
                entry |= {"parameters": model.parameters} if model.parameters else {}
                lines.append(entry_text(model.hub_id, entry).rstrip())
    print("\n".join(lines))
    return 0
