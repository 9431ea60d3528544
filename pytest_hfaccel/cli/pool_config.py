"""`hfaccel pool-config`: how to set up the pool for a set of models."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier


def add_parser(commands: Any) -> None:
    """Add `pool-config` to the parsers of `hfaccel`."""
    text = "Show how to set up the resource pool for a set of models on this machine."
    parser = commands.add_parser("pool-config", help="how to set up the pool for a set of models", description=text)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument(
        "--assume-default",
        action="store_true",
        help="compute with the default config of a model's class where its own dimensions are not known",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    arguments.resource_config = arguments.models
    return show_pool_config(HardwareAwareModelClassifier(assume_default=arguments.assume_default), arguments)


def show_pool_config(classifier: HardwareAwareModelClassifier, arguments: argparse.Namespace) -> int:
    """Print the configuration for the models of `resource_config`.

    Returns:
        0, or 1 where dimensions of a model are not known and nothing was to stand in for them.
    """
    found = classifier.get_optimal_resource_pool_config(arguments.resource_config)
    is_about_them = all(model["dimensions"] == "known" for model in found["models"].values())
    print(json.dumps(found, indent=2)) if arguments.json else _show(found)
    return 0 if is_about_them or arguments.assume_default else 1


def _show(found: dict[str, Any]) -> None:
    from pytest_hfaccel.predict.text import dimensions_lines

    for name, model in found["models"].items():
        for line in dimensions_lines({**model, "model_name": name}):
            print(line)
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
    print(f"Preferred hardware: {hardware['preferred_hardware'] or 'none: no model can run here'}")
    print(f"PyTorch device: {hardware['torch_device'] or 'none'}")
    print("\nModels:")
    for name, model in found["models"].items():
        memory = f"{model['recommended_memory_mb']} MB" if model["recommended_memory_mb"] else "memory not known"
        print(f"  {name}: {model['family']} on {model['recommended_hardware'] or 'no device here'} ({memory})")
    print(f"\n{found['explanation']}")
