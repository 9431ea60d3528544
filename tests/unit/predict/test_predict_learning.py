"""Learning from measured rows, and keeping predictions beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Question, Source
from pytest_hfaccel.history import BenchmarkDatabase, RunRecord
from pytest_hfaccel.predict import HardwareModelPredictor, train_prediction_models
from pytest_hfaccel.predict.calibration import save_calibration
from pytest_hfaccel.predict.learning import NAME_IN_DATABASE
from pytest_hfaccel.predict.text import accuracy_table, accuracy_text
from pytest_hfaccel.tracing.trace import ModelTrace, Operator
from tests.unit.predict.predict_samples import CHIP, REPORT, block_trace, even_calibration, row

if TYPE_CHECKING:
    from pytest_hfaccel.predict.learning.models import DeviceModel, Row


pytestmark = pytest.mark.slow  # scikit-learn takes seconds to import
MIB = 2**20
CALIBRATION = even_calibration()


def trace(width: int, layers: int, batch: int, copies: int = 1) -> ModelTrace:
    """A model of `layers` matrix products and activations."""
    flops, written = 2 * 32 * batch * width * width, 4 * 32 * batch * width
    operators = (
        Operator(
            "addmm", ((width,), (32 * batch, width), (width, width)), (32 * batch, width), flops, 0, 0, count=layers
        ),
        Operator("gelu", ((32 * batch, width),), (32 * batch, width), 0, written, written, count=layers),
        Operator("clone", ((32 * batch, width),), (32 * batch, width), 0, written, written, count=copies * layers),
    )
    weights = 4 * layers * width * width
    return ModelTrace(
        "BertModel", batch, 32, "fp32", False, weights // 4, weights, weights, 8 * written, written, operators
    )


Law = Callable[[ModelTrace, dict[str, float]], float]


def rows(law: Law, memory: Callable[[ModelTrace], float] = lambda _: 1.0 * MIB) -> list[Row]:
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
    from pytest_hfaccel.predict.learning.models import Row, point_of

    roofline = OperatorRoofline(CALIBRATION)
    found = []
    for number, width in enumerate((64, 128, 192, 256, 384, 512, 640, 768)):
        for batch in (1, 2, 4, 8):
            one = trace(width, 2 + number, batch, copies=1 + number % 3)
            seconds = law(one, roofline.breakdown(one))
            found.append(Row(point_of(one, roofline), seconds, int(memory(one)), f"group{number}"))
    return found


def fused(_trace: ModelTrace, groups: dict[str, float]) -> float:
    """A runtime that fuses activations, moves nothing and needs a quarter more for its products."""
    return 1.25 * groups["matrix"] + 1e-4


@pytest.fixture(scope="module")
def model() -> DeviceModel:
    """What is learned of a runtime that fuses, and holds weights twice and activations three times."""
    from pytest_hfaccel.predict.learning.training import fit

    return fit(rows(fused, lambda one: 2 * one.weight_bytes + 3 * one.activation_bytes + 5 * MIB), CALIBRATION)


def test_a_runtime_that_fuses_operators_is_learned_from_other_models(model: DeviceModel) -> None:
    assert model.latency_error < 0.08
    low, high = model.latency_interval
    assert 0.8 < low <= 1.0 <= high < 1.25
    assert (model.rows, model.relatives) == (32, 8)
    assert model.memory_error is not None
    assert model.memory_error < 0.05


def test_rows_whose_memory_is_not_known_still_teach_latency() -> None:
    from pytest_hfaccel.predict.learning.training import fit

    model = fit([replace(row, memory_bytes=None) for row in rows(fused)], CALIBRATION)
    assert model.memory is None
    assert model.memory_interval is None
    assert model.latency_error < 0.08


def test_the_interval_holds_the_share_it_promises() -> None:
    import numpy as np

    from pytest_hfaccel.predict.learning.training import interval_factors

    errors = np.random.default_rng(0).normal(0.0, 0.1, 20_000)
    low, high = interval_factors(errors)
    assert np.mean((np.log(low) <= errors) & (errors <= np.log(high))) == pytest.approx(0.8, abs=0.01)


def test_weights_are_never_negative_and_stay_where_nothing_speaks_against_them() -> None:
    import numpy as np

    from pytest_hfaccel.predict.learning.models import fit_weights

    columns = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0], [3.0, 0.0, 5.0]])
    target = columns @ np.array([2.0, 0.0, 0.0])
    found = fit_weights(columns, target, prior=np.array([1.0, 0.7, 1.0]), pull=np.array([1e-3, 1e-3, 1e-3]))
    assert found == pytest.approx([2.0, 0.7, 0.0], abs=0.01)
    assert fit_weights(columns, columns[:, 0], np.zeros(3), np.zeros(3)).min() >= 0


def test_the_layer_answers_with_an_interval_and_its_basis(model: DeviceModel) -> None:
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
    from pytest_hfaccel.predict.layers.roofline import LearnedLayer
    from pytest_hfaccel.predict.learning.models import TrainedModels

    layer = LearnedLayer(TrainedModels([model]))
    unseen = trace(320, 5, 4)
    found = layer.predict(Question("LlamaModel", "cpu", batch=4), unseen)
    assert found is not None
    assert found.source == Source.LEARNED
    assert found.rows == 32
    assert "8 kinds of models" in found.basis
    assert found.latency_ms is not None
    expected = 1e3 * fused(unseen, OperatorRoofline(CALIBRATION).breakdown(unseen))
    assert found.latency_ms.value == pytest.approx(expected, rel=0.1)
    assert layer.predict(Question("LlamaModel", "cuda"), unseen) is None
    assert "cpu-fp32-inference-1" in layer.why_not(Question("LlamaModel", "cuda"))


@pytest.mark.parametrize("content", [None, b"", b"not a pickle"])
def test_models_that_cannot_be_loaded_are_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    from pytest_hfaccel.predict.learning.models import TrainedModels

    if content is not None:
        (tmp_path / "cpu.joblib").write_bytes(content)
    with pytest.raises(ConfigError, match=r"no trained models|cannot be read"):
        TrainedModels.load(tmp_path)


def test_what_cannot_be_trained_is_said_and_not_raised(tmp_path: Path) -> None:
    from pytest_hfaccel.predict.learning.training import train

    trained = train([row()], [], tmp_path)
    assert not trained.models
    assert "no calibration (hfaccel calibrate cpu)" in trained.left_out[0]
    assert train([row(weights="tiny")], [CALIBRATION], tmp_path).left_out == []


def test_relatives_are_what_the_row_says_or_the_class_without_its_head() -> None:
    from pytest_hfaccel.predict.learning.training import relatives_of

    assert relatives_of(row()) == "Bert"
    assert relatives_of(row(architecture="GPT2LMHeadModel")) == "GPT2"
    assert relatives_of(row(details={"relatives": "llama"})) == "llama"


PAIR: dict[str, Any] = {
    "metric": "latency_ms",
    "device_kind": "cpu",
    "family": "embedding",
    "source": "learned",
    "relative_error": 0.1,
    "inside_interval": True,
}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.setattr("pytest_hfaccel.predict.learning.training.trace_of", block_trace)
    return tmp_path


def database_with(place: Path, *rows: Any) -> Path:
    path = place / "rows.duckdb"
    began, ended = "2099-01-01T00:00:00", "2099-01-01T00:00:30"
    BenchmarkDatabase(path).write_run(RunRecord("x", "performance", began, ended, True, measurements=list(rows)))
    return path


def test_what_was_predicted_is_compared_with_what_is_measured_later(place: Path) -> None:
    path = place / "rows.duckdb"
    predictor = HardwareModelPredictor(database_path=path, report=REPORT)
    said = predictor.predict_performance("bert-base-uncased", hardware=["cpu", "cuda", "webnn"])["predictions"]["cpu"]
    assert BenchmarkDatabase(path).accuracy().empty
    database_with(place, row(2 * said["latency"]))
    pairs = BenchmarkDatabase(path).accuracy()
    latency = next(pair for pair in pairs.to_dict("records") if pair["metric"] == "latency_ms")
    assert latency["predicted"] == pytest.approx(said["latency"])
    assert latency["relative_error"] == pytest.approx(-0.5)
    line = accuracy_table(pairs).set_index("metric").loc["latency_ms"]
    assert (line.device, line.family, line.source, line.pairs) == ("cpu", "embedding", "datasheet", 1)
    assert line.mean_error == pytest.approx(0.5)


def test_a_short_name_is_kept_under_the_registered_one(place: Path) -> None:
    path = place / "rows.duckdb"
    predictor = HardwareModelPredictor(database_path=path, report=REPORT)
    predictor.predict_performance("vit-base-patch16-224", hardware="cpu")
    image = {"model": "google/vit-base-patch16-224", "architecture": "ViTForImageClassification", "length": 0}
    database_with(place, row(5.0, **image))
    assert len(BenchmarkDatabase(path).accuracy()) == 2


@pytest.mark.parametrize("off", ["config", "default"])
def test_predictions_are_kept_only_where_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    path = database_with(place, row())
    if off == "config":
        (place / "config.json").write_text('{"store_predictions": false}', encoding="utf-8")
        predictor = HardwareModelPredictor(database_path=path, config_path=place / "config.json", report=REPORT)
    else:
        monkeypatch.setenv("BENCHMARK_DB_PATH", str(path))
        predictor = HardwareModelPredictor(report=REPORT)
    found = predictor.predict_performance("bert-base-uncased", hardware="cpu")
    assert found["predictions"]["cpu"]["source"] == "measured"
    assert BenchmarkDatabase(path).sql("SELECT count(*) AS n FROM predictions")["n"][0] == 0


def test_a_database_that_cannot_be_written_costs_no_answer(place: Path) -> None:
    path = place / "broken.duckdb"
    path.write_text("this is no database", encoding="utf-8")
    predictor = HardwareModelPredictor(database_path=path, report=REPORT)
    assert predictor.predict_optimal_hardware("gpt2")["primary_recommendation"]
    assert any("predictions are not kept" in note for note in predictor.notes)
    assert path.read_text(encoding="utf-8") == "this is no database"


def test_the_devices_of_the_database_are_known(place: Path) -> None:
    gpu = {"device": "cuda:0", "device_name": "NVIDIA L4", "dtype": "fp16", "effective_dtype": "fp16"}
    path = database_with(place, row(3.0, **gpu))
    predictor = HardwareModelPredictor(database_path=path, report=REPORT)
    found = predictor.predict_performance("bert-base-uncased", hardware="cuda", precision="fp16")["predictions"]["cuda"]
    assert (found["source"], found["latency"], found["device"]) == ("measured", 3.0, "cuda (NVIDIA L4)")
    assert not found["is_present"]
    other = predictor.predict_performance("gpt2", hardware="cuda")["predictions"]["cuda"]
    assert other["source"] == "datasheet"
    assert "NVIDIA L4" in other["basis"]


def test_calibrations_of_the_database_count(place: Path) -> None:
    path = place / "rows.duckdb"
    calibration = replace(even_calibration("cuda:0"), device_name="NVIDIA L4")
    BenchmarkDatabase(path).save_calibration(calibration)
    predictor = HardwareModelPredictor(database_path=path, report=REPORT)
    assert predictor.predict_performance("gpt2", hardware="cuda")["predictions"]["cuda"]["source"] == "calibrated"


def test_accuracy_in_words() -> None:
    pandas = pytest.importorskip("pandas")
    pairs = [PAIR, {**PAIR, "relative_error": -0.3, "inside_interval": False}, {**PAIR, "device_kind": "cuda"}]
    summary = accuracy_table(pandas.DataFrame(pairs))
    assert list(zip(summary.device, summary.pairs, strict=True)) == [("cpu", 2), ("cuda", 1)]
    assert summary.mean_error[0] == pytest.approx(0.2)
    assert summary.bias[0] == pytest.approx(-0.1)
    assert summary.inside[0] == 0.5
    text = accuracy_text(summary).splitlines()
    assert text[1].startswith("metric      device  family     source   pairs  mean error  median  bias ")
    assert text[2].split() == ["latency_ms", "cpu", "embedding", "learned", "2", "20.0%", "20.0%", "-10.0%", "50%"]


CLASSES = (
    "BertForMaskedLM",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "T5ForConditionalGeneration",
    "OPTForCausalLM",
    "CLIPModel",
)


def rows_of_six_families() -> list[Any]:
    """Rows of six kinds of models that take three times what the even device's calibration says."""
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline

    roofline, rows = OperatorRoofline(even_calibration("cpu", threads=4)), []
    for architecture in CLASSES:
        for width, batch in ((128, 1), (256, 2), (512, 4), (1024, 8)):
            dims = {"hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": 4}
            trace = block_trace(architecture, dims, batch=batch, length=128)
            point = {"architecture": architecture, "batch": batch, "model": f"{architecture}-{width}"}
            rows.append(row(3e3 * roofline.seconds(trace), details={"dims": dims}, **point))
    return rows


def test_models_are_trained_kept_and_used(place: Path) -> None:
    calibration = replace(even_calibration("cpu", threads=4), device_name=CHIP)
    save_calibration(calibration, place / "cache")
    path = database_with(place, *rows_of_six_families())
    predictor = HardwareModelPredictor(report=REPORT)
    before = predictor.predict_performance("gpt2-medium", hardware="cpu")["predictions"]["cpu"]
    assert (before["source"], before["rows"]) == ("learned", 0)

    models = train_prediction_models(path, place / "models")
    assert len(models) == 1
    assert list((place / "models").iterdir())
    assert BenchmarkDatabase(path).load_prediction_model(NAME_IN_DATABASE)
    predictor.prediction_models = models
    after = predictor.predict_performance("gpt2-medium", hardware="cpu")["predictions"]["cpu"]
    assert (after["source"], after["rows"] > 0) == ("learned", True)
    assert after["latency"] == pytest.approx(3 * before["latency"], rel=0.3)

    (place / "config.json").write_text(f'{{"models_dir": "{place / "models"}"}}', encoding="utf-8")
    other = HardwareModelPredictor(config_path=place / "config.json", report=REPORT)
    assert other.predict_performance("gpt2-medium", hardware="cpu")["predictions"]["cpu"]["source"] == "learned"
    predictor.prediction_models = None
    again = predictor.predict_performance("gpt2-medium", hardware="cpu")["predictions"]["cpu"]
    assert again == before


def test_too_few_rows_train_nothing_and_say_so(place: Path) -> None:
    models = train_prediction_models(database_with(place, row()), place / "models")
    assert len(models) == 0
    assert "no calibration" in models.left_out[0]


def test_training_on_nothing(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.parquet: there is no such file or directory"):
        train_prediction_models(place / "none.parquet")


def test_trained_models_that_cannot_be_read_are_noted(place: Path) -> None:
    (place / "models").mkdir()
    (place / "models" / "cpu.joblib").write_bytes(b"no pickle")
    (place / "config.json").write_text('{"models_dir": "models"}', encoding="utf-8")
    save_calibration(replace(even_calibration("cpu", threads=4), device_name=CHIP), place / "cache")
    predictor = HardwareModelPredictor(config_path=place / "config.json", report=REPORT)
    found = predictor.predict_performance("gpt2", hardware="cpu")["predictions"]["cpu"]
    assert "ratios that come with this package" in found["basis"]
    assert any("cannot be read" in note for note in predictor.notes)
