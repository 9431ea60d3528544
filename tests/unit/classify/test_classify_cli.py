"""`hfaccel classify`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from pytest_hfaccel.cli import classify
from pytest_hfaccel.core.errors import ConfigError


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    classify.add_parser(parser.add_subparsers())
    given = parser.parse_args(["classify", *arguments])
    return int(given.run(given))


def test_the_answer_reads_like_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bert-base-uncased") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["=== Classification of bert-base-uncased ===", "Family: embedding", "Subfamily: masked_lm"]
    assert "Recommended Template: hf_embedding_template.py" in lines


def test_all_evidence_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    hardware = '{"cuda": {"compatible": true, "memory_usage": {"peak": 1500}}}'
    options = ("--class", "Wav2Vec2ForCTC", "--tasks", "automatic-speech-recognition, x", "--methods", "transcribe")
    assert run("acme/thing", *options, "--hw", hardware, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["family"], answer["recommended_template"]) == ("audio", "hf_audio_template.py")
    assert [each["source"] for each in answer["analyses"]] == [
        "task_analysis",
        "class_analysis",
        "method_analysis",
        "name_analysis",
        "hardware_analysis",
    ]


def test_the_unknown_has_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my-custom-model") == 1
    assert "Family: unknown" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"cuda": true}'])
def test_a_profile_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--hw"):
        run("gpt2", "--hw", text)


def test_a_damaged_database_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "db.json"
    path.write_text("{")
    assert run("gpt2", "--db", str(path)) == 0
    assert "damaged" in capsys.readouterr().err
