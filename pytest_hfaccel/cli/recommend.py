"""`hfaccel recommend`, `requirements` and `pool-config`: where to run a model, and what it needs there."""

from __future__ import annotations

import argparse
from typing import Any

from pytest_hfaccel.cli import can_print, print_json
from pytest_hfaccel.core.errors import ConfigError

_MODEL = "registered name, local directory or hub id"
_ASSUME_DEFAULT = "compute with the default config of a model's class where its own dimensions are not known"
_REQUIREMENTS = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")
_FITS = {True: "yes", False: "no", None: "not known: the device is not present"}


def add_parser(commands: Any) -> None:
    """Add `recommend`, `requirements` and `pool-config` to the parsers of `hfaccel`."""
    text = "Recommend hardware, template and resources for a model, or registered models for a task."
    about = "recommend hardware for a model, or models for a task"
    parser = commands.add_parser("recommend", help=about, description=text)
    parser.add_argument("name", nargs="?", metavar="MODEL", help=_MODEL)
    parser.add_argument("--model", help="the same, as an option")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class of the model")
    parser.add_argument("--task", help="task of the model; without a model: recommend models for this task")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device to choose from, present or not")
    text = "show how to set up the resource pool for these models"
    parser.add_argument("--resource-config", nargs="+", metavar="MODEL", help=text)
    parser.add_argument("--model-db", metavar="FILE", help="JSON file that remembers classifications")
    parser.add_argument("--hardware-cache", metavar="FILE", help="file that remembers the detected hardware")
    parser.add_argument("--force-refresh", action="store_true", help="detect the hardware again")
    parser.add_argument("--assume-default", action="store_true", help=_ASSUME_DEFAULT)
    parser.set_defaults(run=_recommend)

    text = "Compute the memory, disk, cores and batch size of a model on a kind of device."
    about = "compute the memory, disk and cores a model needs"
    parser = commands.add_parser("requirements", help=about, description=text)
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class (default: its own)")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device (default: those present)")
    parser.add_argument("--dtype", default="fp32", help="dtype of weights and activations (default: %(default)s)")
    text = "tokens per sample of text inputs (default: %(default)s)"
    parser.add_argument("--length", type=int, default=128, metavar="N", help=text)
    parser.set_defaults(run=_requirements)

    text = "Show how to set up the resource pool for a set of models on this machine."
    about = "show how to set up the resource pool for some models"
    parser = commands.add_parser("pool-config", help=about, description=text)
    parser.add_argument("resource_config", nargs="+", metavar="MODEL", help=_MODEL)
    parser.add_argument("--assume-default", action="store_true", help=_ASSUME_DEFAULT)
    unset = dict.fromkeys(("name", "model", "task", "model_db", "hardware_cache", "force_refresh"))
    parser.set_defaults(run=_recommend, **unset)

    for name in ("recommend", "requirements", "pool-config"):
        commands.choices[name].add_argument("--json", action="store_true", help="print everything as JSON")


def _recommend(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    model = arguments.name or arguments.model
    if not (model or arguments.task or arguments.resource_config):
        raise ConfigError("recommend: name a model, a --task, or models for --resource-config.")
    classifier = HardwareAwareModelClassifier(
        arguments.hardware_cache,
        arguments.model_db,
        bool(arguments.force_refresh),
        assume_default=arguments.assume_default,
    )
    answer: dict[str, Any]
    if arguments.resource_config:
        answer = classifier.get_optimal_resource_pool_config(arguments.resource_config)
        show, has_answer, about = _show_pool_config, True, list(answer["models"].values())
    elif model:
        tasks = [arguments.task] if arguments.task else None
        answer = classifier.classify_model(model, arguments.model_class, tasks, hardware=arguments.hw)
        show, has_answer, about = _show_model, bool(answer["recommended_hardware"]), [answer]
    else:
        answer = classifier.recommend_model_for_task(arguments.task, arguments.hw)
        show, has_answer, about = _show_task, bool(answer["recommendations"]), []
    print_json(answer) if arguments.json else show(answer)
    is_about_them = arguments.assume_default or all(one["dimensions"] == "known" for one in about)
    return 0 if has_answer and is_about_them else 1


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
    return marks if can_print("".join(marks)) else ("yes", "no")


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


def _show_pool_config(answer: dict[str, Any]) -> None:
    from pytest_hfaccel.predict.text import dimensions_lines

    for name, model in answer["models"].items():
        for line in dimensions_lines({**model, "model_name": name}):
            print(line)
    pool, needs = answer["resource_pool_config"], answer["resource_requirements"]
    hardware = answer["hardware_recommendations"]
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


def _requirements(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    if arguments.length < 1:
        raise ConfigError(f"--length: {arguments.length} is not allowed; it must be 1 or more.")
    requirements = HardwareAwareModelClassifier().get_requirements(
        arguments.model, arguments.model_class, arguments.hw, dtype=arguments.dtype, length=arguments.length
    )
    if arguments.json:
        print_json(requirements)
        return 0
    for kind, needs in requirements.items():
        print(f"=== Resource Requirements for {arguments.model} on {kind} at {needs['dtype']} ===")
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
    return 0
