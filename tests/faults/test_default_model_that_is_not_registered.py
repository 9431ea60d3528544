"""A class's default model is what gets tested, resolved as `--hf-model` is; else the class is an error."""

from __future__ import annotations

import json

from tests.harness import HfRun, Project

_MODULE = """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
{body}
"""
_SERVED = 'architectures = ("Bert*",)'


def module(*body: str) -> str:
    return _MODULE.format(body="\n".join(f"    {line}" for line in body))


def run_class(project: Project, *body: str, arguments: tuple[str, ...] = ("-k", "placement")) -> HfRun:
    project.write("test_hf_bert.py", module(*body))
    return project.run("--hf-device", "fake:0", *arguments)


def test_a_local_directory_is_what_is_tested(project: Project) -> None:
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 32}
    project.write("my-finetuned-bert/config.json", json.dumps(config))
    run = run_class(project, _SERVED, 'default_model = "./my-finetuned-bert"')
    assert run.code == 0, run.output
    (record,) = run.records.values()
    assert (record.model, record.cell) == ("./my-finetuned-bert", "my-finetuned-bert-fake0-fp32")
    assert (record.weights, record.weights_reason) == ("pretrained", "a local directory")
    assert "hfaccel: 1 cell: ./my-finetuned-bert [pretrained] x fake:0 x fp32" in run.output

    every = run_class(
        project, _SERVED, 'default_model = "./my-finetuned-bert"', arguments=("-k", "placement", "--all-models")
    )
    assert "./my-finetuned-bert" in {record.model for record in every.records.values()}
    assert "bert-base-uncased" in {record.model for record in every.records.values()}


_WRONG = {
    "typo": ((_SERVED, 'default_model = "bert-base-uncasd"'), "Did you mean 'bert-base-uncased'?"),
    "nowhere": ((_SERVED, 'default_model = "./nowhere"'), "default_model: ./nowhere: there is no such directory"),
    "hub": (
        (_SERVED, 'default_model = "some/model"'),
        "default_model: some/model: HF_HUB_OFFLINE switches the hub off",
    ),
    "other": ((_SERVED, 'default_model = "gpt2"'), "default_model 'gpt2' is GPT2LMHeadModel, and the class tests"),
    "unserved": (('architectures = ("Nope*",)',), "no `default_model`, and no registered model is of a class that it"),
    "text": (('architectures = "Bert*"',), "`architectures` is a text; make it a tuple: ('Bert*',)."),
    "none": (("architectures = None",), "`architectures` is None"),
    "number": (("architectures = (1,)",), "`architectures` is (1,)"),
    "three": ((_SERVED, "default_model = 3"), "`default_model` is 3"),
    "blank": ((_SERVED, 'default_model = " "'), "`default_model` is blank"),
    "made": ((_SERVED, "def __init__(self): self.model = 1"), "it has an `__init__`"),
    "empty": (("pass",), "`architectures` = nothing"),
    "misspelt": ((_SERVED, 'default_modl = "bert-large-uncased"'), "Did you mean `default_model`?"),
    "fallback": ((_SERVED, 'fallback = "no"'), "`fallback` is 'no'; make it True or False"),
    "serves": ((_SERVED, "def serves(self, spec): return True"), "`serves` is no class method"),
    "texts": ((_SERVED, "@classmethod", "def extra_models(cls): return ['x']"), "return a list of `ModelSpec`"),
}


def test_what_cannot_be_tested_is_an_error_of_the_file(project: Project) -> None:
    for name, (body, _) in _WRONG.items():
        project.write(f"test_hf_{name}.py", module(*body))
    run = project.run("--hf-device", "fake:0")
    assert run.code == 2, run.output  # pytest's code for errors while collecting
    assert "Traceback" not in run.output
    assert "passed" not in run.counts
    for name, (_, said) in _WRONG.items():
        _, _, told = run.output.partition(f"ERROR collecting test_hf_{name}.py ")
        assert said in told.partition("ERROR collecting")[0], name


def test_it_is_an_error_with_workers_too(project: Project) -> None:
    run = run_class(project, _SERVED, 'default_model = "bert-base-uncasd"', arguments=("-n", "2"))
    assert run.code == 1, run.output
    assert "Did you mean 'bert-base-uncased'?" in run.output
    assert "INTERNALERROR" not in run.output
    assert "passed" not in run.counts


def test_none_means_the_first_registered_model_and_a_base_class_is_left_out(project: Project) -> None:
    run = run_class(project, _SERVED, "default_model = None")
    assert run.code == 0, run.output
    assert "hfaccel: 1 cell: bert-base-uncased [tiny]" in run.output
    base = run_class(project, "__test__ = False")
    assert base.code == 5, base.output  # no tests
