"""The examples of `docs/class_based_tests.md` run, its registry files are read, and its packages are the extras."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pytest_hfaccel.registry import load_registry
from tests.harness import environment, run_python

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "class_based_tests.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_python_blocks_say_what_they_print(tmp_path: Path, shared_cache: Path) -> None:
    # "bert.task  # "fill-mask"" is a claim about the value.
    code = re.sub(
        r'^(bert\.\w+) +# ("[^"]*"|\[[^]]*\]).*$', r"assert \1 == \2, \1", "\n".join(blocks("python")), flags=re.M
    )
    assert code.count("assert bert.") == 4
    done = run_python(["-c", code], tmp_path, environment(shared_cache, PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'pipeline': 'passed', 'from_pretrained': 'passed'}"


def test_the_registry_files_are_read(tmp_path: Path) -> None:
    (yaml,), (json,) = blocks("yaml"), blocks("json")
    files = [tmp_path / "mine.yaml", tmp_path / "mine.json"]
    for file, text in zip(files, (yaml, json), strict=True):
        file.write_text(text, encoding="utf-8")
    registry = load_registry(files)
    of_class = ("sentencepiece", "tokenizers>=0.13.3", "accelerate>=0.20.3")
    for name in ("my/llama", "meta-llama/Llama-2-7b-hf"):
        assert registry.get(name).dependencies == (*of_class, "bitsandbytes>=0.39.0")


def test_every_extra_is_told_and_make_matrix_has_those_it_says() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    told = {}
    for name, packages in re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|", GUIDE.partition("## Packages")[2], re.M):
        told[name] = set(re.findall(r"[\w-]+", packages))
    assert set(told) == set(extras) - {"dev"}
    for extra, packages in told.items():
        assert {Requirement(text).name for text in extras[extra]} <= packages, extra
    (ours,) = (Requirement(text) for text in extras["dev"] if text.startswith("pytest-hfaccel"))
    installed = "pip install 'pytest-hfaccel[models,openvino,onnx,web,parallel,benchmark,predict]'"
    assert ours.extras - {"ray", "docs"} == set(re.findall(r"\w+", installed.partition("[")[2]))
    assert installed in GUIDE
    assert installed in (ROOT / "README.md").read_text(encoding="utf-8")
