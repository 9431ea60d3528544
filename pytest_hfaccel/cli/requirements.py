"""`hfaccel requirements`: what a model needs on a device, computed."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `requirements` to the parsers of `hfaccel`."""
    text = "Compute the memory, disk, cores and batch size of a model on a kind of device."
    parser = commands.add_parser("requirements", help="what a model needs, computed", description=text)
    parser.add_argument("model", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class (default: its own)")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device (default: those present)")
    parser.add_argument("--dtype", default="fp32", help="dtype of weights and activations (default: %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens per sample of texts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
    from pytest_hfaccel.core.errors import ConfigError

    if arguments.length < 1:
        raise ConfigError(f"--length: {arguments.length} is not allowed; it must be 1 or more.")
    found = HardwareAwareModelClassifier().get_requirements(
        arguments.model, arguments.model_class, arguments.hw, dtype=arguments.dtype, length=arguments.length
    )
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for kind, needs in found.items():
        _show(arguments.model, kind, needs)
    return 0


def _show(model: str, kind: str, needs: dict[str, Any]) -> None:
    print(f"=== Resource Requirements for {model} on {kind} at {needs['dtype']} ===")
    for name in ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size"):
        print(f"  {name}: {needs[name]}")
    print(f"  parameters: {needs['parameters']:,}")
    print(f"  weights_mb: {needs['weights_mb']}")
    print(f"  activations_mb: {needs['activations_mb']} (one sample, {needs['length']} tokens of text)")
    print(f"  fits: {_FITS[needs['fits']]}")
    print("\nSources:")
    for name, source in needs["sources"].items():
        print(f"  {name}: {source}")
    print()


_FITS = {True: "yes", False: "no", None: "not known: the device is not here"}
