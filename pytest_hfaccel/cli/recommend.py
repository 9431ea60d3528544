"""`hfaccel recommend`: where to run a model, or which models to run for a task."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

_REQUIREMENTS = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")


def add_parser(commands: Any) -> None:
    """Add `recommend` to the parsers of `hfaccel`."""
    text = "Recommend hardware, template and resources for a model, or registered models for a task."
    parser = commands.add_parser("recommend", help="where to run a model, or models for a task", description=text)
    parser.add_argument("name", nargs="?", metavar="MODEL", help="registered name, local directory or hub id")
    parser.add_argument("--model", help="the same, as an option")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class of the model")
    parser.add_argument("--task", help="task of the model; without a model: recommend models for this task")
    parser.add_argument("--hw", nargs="+", metavar="KIND", help="kinds of device to choose among, present or not")
    parser.add_argument("--resource-config", nargs="+", metavar="MODEL", help="show the pool's set-up for these models")
    parser.add_argument("--model-db", metavar="FILE", help="JSON file in which classifications are kept")
    parser.add_argument("--hardware-cache", metavar="FILE", help="file in which the detected hardware is kept")
    parser.add_argument("--force-refresh", action="store_true", help="detect the hardware anew")
    parser.add_argument(
        "--assume-default",
        action="store_true",
        help="compute with the default config of a model's class where its own dimensions are not known",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.cli.pool_config import show_pool_config
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
    found = classifier.recommend_model_for_task(arguments.task, arguments.hw)
    print(json.dumps(found, indent=2)) if arguments.json else _show_task(found)
    return 0 if found["recommendations"] else 1


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


def _show_task(found: dict[str, Any]) -> None:
    print(f"Task: {found['task']}")
    print(f"Hardware constraints: {', '.join(found['hardware_constraints']) or 'the devices of this machine'}")
    print("\nRecommended models:")
    for number, model in enumerate(found["recommendations"], 1):
        print(f"\n{number}. {model['model_name']}")
        print(f"   Family: {model['family']}")
        print(f"   Subfamily: {model['subfamily'] or 'N/A'}")
        print(f"   Optimal hardware: {model['recommended_hardware']}")
        print(f"   Memory required: {model['resource_requirements']['recommended_memory_mb']} MB")
        print(f"   Confidence: {model['confidence']:.2f}")
        print(f"   Why: {model['explanation']}")
    if found["excluded"]:
        print("\nNot recommended:")
    for name, why in found["excluded"].items():
        print(f"  {name}: {why}")
    print(f"\n{found['explanation']}")
