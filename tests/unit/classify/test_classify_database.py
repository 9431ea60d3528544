"""The database: found again, whole under parallel writers, and set aside when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hfaccel.classify import DamagedDatabaseWarning, ModelFamilyClassifier, classify_model
from pytest_hfaccel.core.errors import ConfigError


def test_an_answer_with_more_evidence_is_found_again_by_name(tmp_path: Path) -> None:
    path = tmp_path / "made" / "db.json"
    first = classify_model("acme/thing", model_class="GPT2LMHeadModel", model_db_path=path)
    again = classify_model("acme/thing", model_db_path=path)
    assert again == {**first, "source": "model_database"}
    assert json.loads(path.read_text())["acme/thing"]["family"] == "text_generation"


def test_new_evidence_replaces_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    classify_model("acme/thing", model_class="GPT2LMHeadModel", model_db_path=path)
    classify_model("acme/thing", model_class="Wav2Vec2ForCTC", model_db_path=path)
    assert classify_model("acme/thing", model_db_path=path)["family"] == "audio"


def test_what_another_process_stored_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    reader = ModelFamilyClassifier(model_db_path=path)
    assert reader.classify_model("acme/thing")["family"] == "unknown"
    ModelFamilyClassifier(model_db_path=path).classify_model("acme/thing", model_class="ViTModel")
    assert reader.classify_model("acme/thing")["family"] == "vision"


def test_the_unknown_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    classify_model("acme/thing", model_db_path=path)
    assert not path.exists()


def test_parallel_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    code = (
        "import sys; from pytest_hfaccel.classify import classify_model\n"
        "for at in range(20): classify_model(f'bert-{sys.argv[2]}-{at}', model_db_path=sys.argv[1])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(at)]) for at in range(3)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda at: classify_model(f"gpt2-{at}", model_db_path=path), range(20)))
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(json.loads(path.read_text())) == 80
    assert not [left for left in tmp_path.iterdir() if left.name not in ("db.json", "db.json.lock")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"gpt2": 3}', b'{"gpt2": {"family": "vision"}}'])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "db.json"
    path.write_bytes(content)
    with pytest.warns(DamagedDatabaseWarning, match=r"db\.json.*damaged"):
        answer = classify_model("gpt2", model_db_path=path)
    assert answer["source"] == "combined_analysis"
    (kept,) = tmp_path.glob("db.json.damaged-*")
    assert kept.read_bytes() == content
    assert list(json.loads(path.read_text())) == ["gpt2"]


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    path.touch()
    classify_model("gpt2", model_db_path=path)
    assert classify_model("gpt2", model_db_path=path)["source"] == "model_database"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"db\.json: the model database cannot be written"):
        classify_model("gpt2", model_db_path=tmp_path / "file" / "db.json")
