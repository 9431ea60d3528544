"""`hfaccel pool-config`: how to set up the pool for a set of models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `pool-config` to the parsers of `hfaccel`."""
    text = "Show how to set up the resource pool for a set of models on this machine."
    parser = commands.add_parser("pool-config", help="how to set up the pool for a set of models", description=text)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.advisor import HardwareAwareModelClassifier

    show_pool_config(HardwareAwareModelClassifier(), arguments.models, as_json=arguments.json)
    return 0


def show_pool_config(classifier: Any, models: Sequence[str], *, as_json: bool) -> None:
    """Print the configuration for these models."""
    found = classifier.get_optimal_resource_pool_config(models)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    pool, needs, hardware = (
        found[key] for key in ("resource_pool_config", "resource_requirements", "hardware_recommendations")
    )
    print("=== Resource Pool Configuration ===")
    print(f"Low memory mode: {'yes' if pool['low_memory_mode'] else 'no'}")
    print(f"Recommended timeout: {pool['recommended_timeout_mins']} minutes")
    print(f"Pool memory (HFACCEL_POOL_MEMORY): {pool['pool_memory']}")
    print(f"Maximum memory required: {needs['max_memory_mb']} MB")
    print(f"Memory required together: {needs['total_memory_mb']} MB")
    print(f"Disk space: {needs['disk_space_mb']} MB")
    print(f"Preferred hardware: {hardware['preferred_hardware']}")
    print(f"PyTorch device: {hardware['torch_device']}")
    print("\nModels:")
    for name, model in found["models"].items():
        memory = f"{model['recommended_memory_mb']} MB" if model["recommended_memory_mb"] else "memory not known"
        print(f"  {name}: {model['family']} on {model['recommended_hardware']} ({memory})")
    print(f"\n{found['explanation']}")
