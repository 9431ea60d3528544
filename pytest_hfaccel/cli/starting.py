"""`hfaccel init`, `doctor`, `generate`, `completion` and `clean`: the first minutes with the package, and the last."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError, HfAccelError, format_bytes

_SHELLS = ("bash", "zsh", "fish", "powershell", "tcsh")

_CACHED = (
    *("bisect", "calibrations", "checkpoints", "executorch", "hub", "intact", "onnx", "openvino"),
    *("prediction_models", "registry", "traces"),
)
"""The folders in our cache directory: what else lies there is somebody else's."""


def add_parser(commands: Any) -> None:
    """Add the commands to the parsers of `hfaccel`."""
    text = "Write what a project lacks to test its models with pytest: registry, model class modules, settings, CI."
    parser = _add(commands, "init", "make a project ready to test its models", text, _init)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="the project (default: this folder)")
    text = "model to test; may be repeated (default: those that the project's sources load)"
    parser.add_argument("--model", action="append", default=[], metavar="MODEL", help=text)
    parser.add_argument("--ci", choices=("github", "gitlab", "none"), default="", help="CI system (default: found out)")

    text = "Find what is wrong with the environment and say what to do. Exit code 1: something is broken."
    parser = _add(commands, "doctor", "find what is wrong with the environment", text, _doctor)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="the project (default: this folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-pytest", action="store_true", help="do not start pytest")

    text = "Write a model class module for a model, from a template of its family. Loads no model."
    parser = _add(commands, "generate", "write a model class module for a model", text, _generate)
    parser.add_argument("model", help="registered name, hub id, local directory, or a class such as opt/OPTForCausalLM")
    text = "folder for the module (default: where pytest looks in this project)"
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help=text)
    text = "device that the module runs on as a script: cpu, cuda:0, openvino:CPU, ... (default: the best one)"
    parser.add_argument("--device", metavar="ID", help=text)
    text = "family, subfamily, or a jinja2 file of your own, which may extend ours (default: by the model's family)"
    parser.add_argument("--template", default="", metavar="NAME", help=text)
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="how long a test may take; needs pytest-timeout")
    text = "remove the model's cached checkpoints and conversions first"
    parser.add_argument("--clear-cache", action="store_true", help=text)
    parser.add_argument("--debug", action="store_true", help="show what the choice of the template is based on")
    parser.add_argument(
        "--registry", action="append", metavar="FILE", help="registry file that adds to the shipped one"
    )

    text = 'Print what makes a shell complete the arguments of hfaccel, e.g. eval "$(hfaccel completion bash)".'
    parser = _add(commands, "completion", "print the completion for a shell", text, _completion)
    parser.add_argument("shell", choices=_SHELLS, help="the shell")

    text = "Remove what runs have left on this machine: cached checkpoints, conversions and measurements. Reports stay."
    parser = _add(commands, "clean", "remove the caches", text, _clean)
    parser.add_argument("--stale", action="store_true", help="only what is damaged, abandoned or long unused")
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed")


def _add(
    commands: Any, name: str, text: str, description: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=description)
    parser.set_defaults(run=run)
    return parser


def _init(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.project.new_project import create_project

    for step in create_project(arguments.directory, arguments.model, arguments.ci):
        print(step)
    where = "" if arguments.directory == Path() else f"cd {arguments.directory} && "
    print(f"\nNext: {where}pytest\n`hfaccel doctor` finds what is wrong with the environment.")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.project.doctor import Finding, examine

    if not arguments.directory.is_dir():
        raise ConfigError(f"{arguments.directory}: there is no such folder.")
    findings: list[Finding] = []
    for finding in examine(arguments.directory.resolve(), start_pytest=not arguments.no_pytest):
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.status:<8} {finding.subject:<9} {finding.message}".rstrip(), flush=True)
            if finding.remedy:
                print(f"{'':<18} -> {finding.remedy}")
    counts = {status: sum(f.status == status for f in findings) for status in ("broken", "warning", "note", "ok")}
    if arguments.json:
        print_json({"counts": counts, "findings": [asdict(finding) for finding in findings]})
    else:
        broken, warnings = counts["broken"], counts["warning"]
        print(f"\n{broken} broken, {warnings} warning{'' if warnings == 1 else 's'}")
    return int(counts["broken"] > 0)


def _generate(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.generator import make_module, registry_entry, write_module
    from pytest_hfaccel.project.settings import modules_folder
    from pytest_hfaccel.registry import load_registry, resolve_model
    from pytest_hfaccel.registry.additions import entry_text

    if arguments.timeout is not None:
        _require_timeout(arguments.timeout)
    config = RunConfig.from_values({"registries": arguments.registry})
    registry = load_registry(config.registry_files, cache_dir=config.cache_dir)
    specs = resolve_model(arguments.model, registry)
    if len(specs) > 1:
        raise ConfigError(f"{arguments.model!r} names several models: {', '.join(s.name for s in specs)}. Name one.")
    (spec,) = specs
    folder = arguments.output_dir or modules_folder(Path())
    if arguments.clear_cache:
        _remove([*config.cache_dir.glob(f"*/{spec.architecture}-*")], dry_run=False)
    device = _device(arguments.device) if arguments.device else ""
    module = make_module(spec, folder, template=arguments.template, device=device, timeout=arguments.timeout)
    if arguments.debug:
        found = module.classification
        print(f"model: {spec.name} ({spec.architecture}, {spec.task}; {spec.source})", file=sys.stderr)
        print(f"family: {found['family']}, {found['subfamily']} ({found['confidence']:.2f})", file=sys.stderr)
        for analysis in found["analyses"]:
            print(f"  {analysis}", file=sys.stderr)
        print(f"template: {module.template}", file=sys.stderr)
    others = [name for name in module.served_by if name != module.path.name]
    if not others:
        print(f"{module.path}: {'written' if write_module(module) else 'is there already'} ({spec.architecture})")
        print(f"Run it: pytest {module.path}" + (f" --hf-device {device}" if device else ""))
        return 0
    print(f"{folder / others[0]} tests {spec.architecture} already; nothing was written.")
    if spec.name in registry or not (spec.path or spec.hub_id):
        print(f"{spec.name} is registered: pytest {folder / others[0]} --hf-model {spec.name}")
        return 0
    name = Path(spec.path).name if spec.path else spec.hub_id
    entry = registry_entry(replace(spec, name=name), Path.cwd())
    print(f"Its registry entry, which `hfaccel registry add {arguments.model} --to registry.yaml` adds:\n")
    print(entry_text(name, entry), end="")
    return 0


def _require_timeout(seconds: int) -> None:
    from importlib.util import find_spec

    if seconds < 1:
        raise ConfigError(f"--timeout: {seconds} is not allowed. Wanted: seconds, 1 or more.")
    if find_spec("pytest_timeout") is None:
        raise ConfigError(
            "--timeout: the package pytest-timeout is not installed.", hint="pip install 'pytest-hfaccel[parallel]'"
        )


def _device(name: str) -> str:
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.core.spec import Device

    return Device.parse(name, Backends().kinds()).id


def _completion(arguments: argparse.Namespace) -> int:
    try:
        import argcomplete
    except ImportError as error:
        raise HfAccelError(
            "Completion needs the package argcomplete.", hint="pip install 'pytest-hfaccel[completion]'"
        ) from error
    print(argcomplete.shellcode(["hfaccel"], shell=arguments.shell))
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.project.doctor import stale_entries

    cache = RunConfig.from_values({}).cache_dir
    if arguments.stale:
        found = list(stale_entries(cache))
    else:
        found = [cache / name for name in _CACHED if (cache / name).exists()] + _bytecode_of_pytest()
    freed = _remove(found, dry_run=arguments.dry_run)
    if not arguments.dry_run and cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
    print(f"{format_bytes(freed)} {'would be freed' if arguments.dry_run else 'freed'}")
    return 0


def _bytecode_of_pytest() -> list[Path]:
    """Return what pytest compiled of this package, which pip does not know and would leave behind."""
    return sorted(Path(__file__).parents[1].rglob("__pycache__/*-pytest-*.pyc"))


def _remove(paths: list[Path], *, dry_run: bool) -> int:
    """Remove files and folders; return the bytes they took.

    Raises:
        ConfigError: One of them cannot be removed.
    """
    freed = 0
    for path in paths:
        files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        freed += sum(each.stat().st_size for each in files)
        if path.suffix != ".pyc":
            print(f"{'would remove' if dry_run else 'removed'} {path}")
        if dry_run:
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be removed: {error.strerror}.") from error
    return freed
