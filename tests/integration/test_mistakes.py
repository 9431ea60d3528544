"""Bad input: one clear message, exit code 4, no traceback."""

from __future__ import annotations

import pytest

from tests.harness import Project

USAGE_ERROR = 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hf-device", "tpu"), ["'tpu' is not a device", "Allowed: cpu, cuda"]),
        (("--hf-device", "cuda:x"), ["cuda takes an index"]),
        (("--hf-dtype", "fp61"), ["'fp61' is not a dtype", "Allowed: fp32, bf16, fp16, int8"]),
        (("--hf-model", "bert-base-uncasde"), ["bert-base-uncasde", "bert-base-uncased"]),
        (("--hf-model", "./nowhere"), ["nowhere"]),
        (("--hf-model", "gpt2"), ["gpt2", "GPT2LMHeadModel", "Bert*"]),
        (("--hf-require-device", "cuda"), ["--hf-require-device cuda", "not on this machine", "hfaccel hardware"]),
    ],
    ids=lambda value: "-".join(value[-1:]).strip("./") if isinstance(value, tuple) else "",
)
def test_option(project: Project, arguments: tuple[str, ...], said: list[str]) -> None:
    run = project.run(*arguments)
    assert run.code == USAGE_ERROR, run.output
    for text in said:
        assert text in run.output
    assert "Traceback" not in run.output
    assert "INTERNALERROR" not in run.output


def test_all_mistakes_of_a_registry_at_once(project: Project) -> None:
    project.write(
        "mine.yaml",
        "version: 1\n"
        "models:\n"
        "  a/b:\n"
        "    architecture: BertForMaskedLM\n"
        "    task: fill-mask\n"
        "    dtypes: [fp32, fp61]\n"
        "  c/d:\n"
        "    architecture: BertForMaskedLM\n"
        "    taks: fill-mask\n",
    )
    run = project.run("--hf-registry", "mine.yaml")
    assert run.code == USAGE_ERROR, run.output
    assert "mine.yaml:6" in run.output
    assert "Did you mean 'fp16'?" in run.output or "Did you mean 'fp32'?" in run.output
    assert "taks" in run.output
    assert "task" in run.output


def test_a_registry_that_is_not_there(project: Project) -> None:
    run = project.run("--hf-registry", "missing.yaml")
    assert run.code == USAGE_ERROR, run.output
    assert "missing.yaml" in run.output
