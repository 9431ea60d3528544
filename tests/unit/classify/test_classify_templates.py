"""Every family and subfamily has a template, and what it renders is a model class module."""

from __future__ import annotations

import ast

import jinja2
import pytest

from pytest_hfaccel.classify import MODEL_SUBFAMILIES, TEMPLATE_FOLDER, UNKNOWN, ModelFamilyClassifier
from pytest_hfaccel.engine.model_class import ModelClassTests

PAIRS = [(family, None) for family in (*MODEL_SUBFAMILIES, UNKNOWN, None)] + [
    (family, subfamily) for family, subfamilies in MODEL_SUBFAMILIES.items() for subfamily in subfamilies
]
HOSTILE = 'x"""\n"); import os; os.system("true") #{{ 7 * 7 }}\\'


def _render(template: str, **values: object) -> str:
    # Python source, not HTML: values are quoted by the templates themselves.
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER))  # noqa: S701
    return environment.get_template(template).render(**values)


@pytest.mark.parametrize(
    ("family", "subfamily", "template"),
    [
        ("embedding", "masked_lm", "hf_embedding_template.py"),
        ("text_generation", "causal_lm", "hf_text_generation_template.py"),
        ("vision", "image_classifier", "hf_vision_template.py"),
        ("text_generation", "seq2seq", "hf_seq2seq_template.py"),
        ("text_generation", "no such", "hf_text_generation_template.py"),
        ("audio", None, "hf_audio_template.py"),
        (UNKNOWN, None, "hf_template.py"),
    ],
)
def test_the_template_of_a_family(family: str, subfamily: str | None, template: str) -> None:
    assert ModelFamilyClassifier().get_template_for_family(family, subfamily) == template


@pytest.mark.parametrize(("family", "subfamily"), PAIRS)
@pytest.mark.parametrize("architecture", [None, "BertForMaskedLM"])
def test_each_renders_a_model_class_module(family: str | None, subfamily: str | None, architecture: str | None) -> None:
    template = ModelFamilyClassifier().get_template_for_family(family, subfamily)
    source = _render(template, model_name=HOSTILE, model_family=family, architecture=architecture)
    namespace: dict[str, object] = {"__name__": "generated"}
    exec(compile(source, template, "exec"), namespace)  # noqa: S102
    (made,) = [each for name, each in namespace.items() if name.startswith("Test")]
    assert isinstance(made, type)
    assert issubclass(made, ModelClassTests)
    assert made.default_model == HOSTILE
    assert made.architectures
    if architecture:
        assert made.architectures == (architecture,)
    assert [type(node).__name__ for node in ast.parse(source).body] == ["Expr", "ImportFrom", "ClassDef", "If"]


def test_no_template_is_left_over() -> None:
    classifier = ModelFamilyClassifier()
    used = {classifier.get_template_for_family(*pair) for pair in PAIRS}
    assert {path.name for path in TEMPLATE_FOLDER.iterdir() if path.is_file()} == used
