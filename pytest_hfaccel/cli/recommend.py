"""`hfaccel recommend`, `requirements` and `pool-config`: where to run a model, and what it needs there."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier


_ASSUME_DEFAULT = "compute with the default config of a model's class where its own dimensions are not known"
_REQUIREMENTS = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")


def add_parser(commands: Any) -> None:
    """Add `recommend`, `requirements` and `pool-config` to the parsers of `hfaccel`."""
    _add_recommend(commands)
    _add_requirements(commands)
    _add_pool_config(commands)


def _add_recommend(commands: Any) -> None:
    text = "Recommend hardware, template and resources for a model, or registered models for a task."
    parser = commands.add_parser(
        "recommend", help="recommend hardware for a model, or models for a task", description=text
    )
    parser.add_argument("name", nargs="?", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--model", help="the same, as an option")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class of the model")
    parser.add_argument("--task", help="task of the model; without a model: recommend models for this task")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device to choose from, present or not")
    parser.add_argument(
        "--resource-config", nargs="+", metavar="MODEL", help="show how to set up the resource pool for these models"
    )
    parser.add_argument("--model-db", metavar="FILE", help="JSON file that remembers classifications")
    parser.add_argument("--hardware-cache", metavar="FILE", help="file that remembers the detected hardware")
    parser.add_argument("--force-refresh", action="store_true", help="detect the hardware again")
    parser.add_argument("--assume-default", action="store_true", help=_ASSUME_DEFAULT)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_recommend)


def _recommend(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    model = arguments.name or arguments.model
    if not (model or arguments.task or arguments.resource_config):
        raise ConfigError("recommend: name a model, a --task, or models for --resource-config.")
    classifier = HardwareAwareModelClassifier(
        arguments.hardware_cache,
        arguments.model_db,
        arguments.force_refresh,
        assume_default=arguments.assume_default,
    )
    if arguments.resource_config:
        return show_pool_config(classifier, arguments)
    if model:
        tasks = [arguments.task] if arguments.task else None
        answer = classifier.classify_model(model, arguments.model_class, tasks, hardware=arguments.hw)
        print(json.dumps(answer, indent=2)) if arguments.json else _show_model(answer)
        is_about_it = arguments.assume_default or answer["dimensions"] == "known"
        return 0 if answer["recommended_hardware"] and is_about_it else 1
    answer = classifier.recommend_model_for_task(arguments.task, arguments.hw)
    print(json.dumps(answer, indent=2)) if arguments.json else _show_task(answer)
    return 0 if answer["recommendations"] else 1


def _show_model(answer: dict[str, Any]) -> None:
    from pytest_hfaccel.predict.text import dimensions_lines

    for line in dimensions_lines(answer):
        print(line)
    print(f"=== Hardware-Aware Classification for {answer['model_name']} ===")
    print(f"Family: {answer['family']}")
    print(f"Subfamily: {answer['subfamily']}")
    print(f"Recommended Hardware: {answer['recommended_hardware'] or 'none: nothing considered can run it'}")
    print(f"Recommended Template: {answer['recommended_template']}")
    print("\nResource Requirements:")
    for name in _REQUIREMENTS:
        value = answer["resource_requirements"][name]
        print(f"  {name}: {'not known' if value is None else value}")
    print("\nHardware Compatibility:")
    yes, no = _marks()
    for kind, profile in answer["hardware_profile"].items():
        runs, here = (yes if profile[key] else no for key in ("compatible", "system_available"))
        print(f"  {kind}: {runs} (System: {here}) {profile['basis']} {profile['support']}")
    print(f"\n{answer['explanation']}")


def _marks() -> tuple[str, str]:
    """Return the guide's marks, or words where the terminal's encoding has none."""
    marks = ("\N{WHITE HEAVY CHECK MARK}", "\N{CROSS MARK}")
    try:
        "".join(marks).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "yes", "no"
    return marks


def _show_task(answer: dict[str, Any]) -> None:
    print(f"Task: {answer['task']}")
    print(f"Hardware constraints: {', '.join(answer['hardware_constraints']) or 'the devices of this machine'}")
    print("\nRecommended models:")
    for number, model in enumerate(answer["recommendations"], 1):
        print(f"\n{number}. {model['model_name']}")
        print(f"   Family: {model['family']}")
        print(f"   Subfamily: {model['subfamily'] or 'N/A'}")
        print(f"   Optimal hardware: {model['recommended_hardware']}")
        print(f"   Memory required: {model['resource_requirements']['recommended_memory_mb']} MB")
        print(f"   Confidence: {model['confidence']:.2f}")
        print(f"   Why: {model['explanation']}")
    if answer["excluded"]:
        print("\nNot recommended:")
    for name, why in answer["excluded"].items():
        print(f"  {name}: {why}")
    print(f"\n{answer['explanation']}")


def _add_requirements(commands: Any) -> None:
    text = "Compute the memory, disk, cores and batch size of a model on a kind of device."
    parser = commands.add_parser(
        "requirements", help="compute the memory, disk and cores a model needs", description=text
    )
    parser.add_argument("model", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class (default: its own)")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device (default: those present)")
    parser.add_argument("--dtype", default="fp32", help="dtype of weights and activations (default: %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens per sample of texts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_requirements)


def _requirements(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    if arguments.length < 1:
        raise ConfigError(f"--length: {arguments.length} is not allowed; it must be 1 or more.")
    requirements = HardwareAwareModelClassifier().get_requirements(
        arguments.model, arguments.model_class, arguments.hw, dtype=arguments.dtype, length=arguments.length
    )
    if arguments.json:
        print(json.dumps(requirements, indent=2))
        return 0
    for kind, needs in requirements.items():
        _show_requirements(arguments.model, kind, needs)
    return 0


def _show_requirements(model: str, kind: str, needs: dict[str, Any]) -> None:
    print(f"=== Resource Requirements for {model} on {kind} at {needs['dtype']} ===")
    for name in _REQUIREMENTS:
        print(f"  {name}: {needs[name]}")
    print(f"  parameters: {needs['parameters']:,}")
    print(f"  weights_mb: {needs['weights_mb']}")
    print(f"  activations_mb: {needs['activations_mb']} (one sample, {needs['length']} tokens of text)")
    print(f"  fits: {_FITS[needs['fits']]}")
    print("\nSources:")
    for name, source in needs["sources"].items():
        print(f"  {name}: {source}")
    print()


_FITS = {True: "yes", False: "no", None: "not known: the device is not present"}


def _add_pool_config(commands: Any) -> None:
    text = "Show how to set up the resource pool for a set of models on this machine."
    parser = commands.add_parser(
        "pool-config", help="show how to set up the resource pool for some models", description=text
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--assume-default", action="store_true", help=_ASSUME_DEFAULT)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_pool_config)


def _pool_config(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    arguments.resource_config = arguments.models
    return show_pool_config(HardwareAwareModelClassifier(assume_default=arguments.assume_default), arguments)


def show_pool_config(classifier: HardwareAwareModelClassifier, arguments: argparse.Namespace) -> int:
    """Print the configuration for the models of `resource_config`.

    Returns:
        0, or 1 where dimensions of a model are not known and nothing was to stand in for them.
    """
    answer = classifier.get_optimal_resource_pool_config(arguments.resource_config)
    is_about_them = all(model["dimensions"] == "known" for model in answer["models"].values())
    print(json.dumps(answer, indent=2)) if arguments.json else _show_pool_config(answer)
    return 0 if is_about_them or arguments.assume_default else 1


def _show_pool_config(answer: dict[str, Any]) -> None:
    from pytest_hfaccel.predict.text import dimensions_lines

    for name, model in answer["models"].items():
        for line in dimensions_lines({**model, "model_name": name}):
            print(line)
    pool, needs, hardware = (
        answer[key] for key in ("resource_pool_config", "resource_requirements", "hardware_recommendations")
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
    for name, model in answer["models"].items():
        memory = f"{model['recommended_memory_mb']} MB" if model["recommended_memory_mb"] else "memory not known"
        print(f"  {name}: {model['family']} on {model['recommended_hardware'] or 'no device here'} ({memory})")
    print(f"\n{answer['explanation']}")
