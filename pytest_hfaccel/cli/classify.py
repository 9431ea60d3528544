"""`hfaccel classify`: which family a model belongs to, how sure that is, and why."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

from pytest_hfaccel.classify import UNKNOWN, Classification, ModelFamilyClassifier
from pytest_hfaccel.classify.records import HardwareProfile
from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.errors import ConfigError

_PROFILE_HINT = (
    'Write it as \'{"cuda": {"compatible": true, "memory_usage": {"peak": 1500}}, "mps": {"compatible": false}}\'.'
)


def add_parser(commands: Any) -> None:
    """Add `classify` to the parsers of `hfaccel`."""
    text = "Say which family a model belongs to, how certain that is, and why."
    parser = commands.add_parser("classify", help="say which family a model belongs to, and why", description=text)
    parser.add_argument("name", help="hub id, local directory or any other name")
    parser.add_argument("--class", dest="model_class", metavar="CLASS", help="architecture class, e.g. BertForMaskedLM")
    parser.add_argument("--tasks", default="", metavar="A,B", help="tasks, e.g. fill-mask,feature-extraction")
    parser.add_argument("--methods", default="", metavar="A,B", help="methods the model offers, e.g. generate")
    parser.add_argument(
        "--hw",
        default="",
        metavar="JSON",
        help='hardware profile of the model, e.g. \'{"cuda": {"compatible": true}}\'',
    )
    parser.add_argument("--db", metavar="PATH", help="JSON file that remembers classifications")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    classifier = ModelFamilyClassifier(model_db_path=arguments.db)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = classifier.classify_model(
            arguments.name,
            model_class=arguments.model_class,
            tasks=_listed(arguments.tasks),
            methods=_listed(arguments.methods),
            hw_compatibility=_profile(arguments.hw),
        )
    for warning in caught:
        print(f"hfaccel: {warning.message}", file=sys.stderr)
    template = classifier.get_template_for_family(answer["family"], answer["subfamily"])
    if arguments.json:
        print_json({**answer, "recommended_template": template})
    else:
        print(_text(answer, template))
    return 0 if answer["family"] != UNKNOWN else 1


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _profile(text: str) -> HardwareProfile | None:
    if not text:
        return None
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--hw: {text!r} is not JSON: {error}", hint=_PROFILE_HINT) from error
    if not isinstance(profile, dict) or not all(isinstance(entry, dict) for entry in profile.values()):
        raise ConfigError(f"--hw: {text!r} is not an object of objects", hint=_PROFILE_HINT)
    return profile


def _text(answer: Classification, template: str) -> str:
    lines = [
        f"=== Classification of {answer['model_name']} ===",
        f"Family: {answer['family']}",
        f"Subfamily: {answer['subfamily'] or '-'}",
        f"Confidence: {answer['confidence']:.2f} (subfamily {answer['subfamily_confidence']:.2f})",
        f"Recommended Template: {template}",
        f"Source: {answer['source']}",
        "",
        "Evidence:",
    ]
    lines += [f"  {each['source']}: {each['family'] or '-'}; {each['reason']}" for each in answer["analyses"]]
    return "\n".join(lines)
